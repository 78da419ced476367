"""Self-attention between its projections (Vaswani et al. 2017, arXiv:1706.03762, section 3.2).

    q, k, v = in_proj x
    out     = out_proj attention(q, k, v)

`attention_mixer_definition` says what this means; `AttentionLayer` is what the compiled kernel
is given.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from recall_arena.kernels import structs
from recall_arena.kernels.causal_attention import causal_attention, is_small, rotary_table_of
from recall_arena.kernels.layer import Layer, Map, Shape
from recall_arena.shapes import Hidden, ReadHidden


def attention_mixer_definition(
    x: Hidden,
    in_proj: Map,
    out_proj: Map,
    heads: int,
    *,
    rotary: bool = False,
    last: bool = False,
) -> ReadHidden:
    """The equations, with RoPE if `rotary`.  Any float type, any device.

    The projections are functions, so that modules serve as well as weights.
    """
    batch, length, width = x.shape
    qkv = in_proj(x).reshape(batch, length, 3, heads, width // heads)
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind()
    table = rotary_table_of(x, length, width // heads) if rotary else None
    mixed = causal_attention(q[:, :, -1:] if last else q, k, v, table)
    return out_proj(mixed.transpose(1, 2).flatten(2))


@dataclass(frozen=True)
class AttentionLayer(Layer):
    """Weights: in_proj has the rows of the queries, then those of the keys and of the values."""

    KIND = structs.Kind.ATTENTION

    in_proj: Float[Tensor, "three_widths width"]
    out_proj: Float[Tensor, "width width"]
    heads: int
    rotary: bool = False

    def weights(self) -> tuple[Tensor, ...]:
        return self.in_proj, self.out_proj

    def with_weights(self, weights: Sequence[Tensor]) -> "AttentionLayer":
        in_proj, out_proj = weights
        return replace(self, in_proj=in_proj, out_proj=out_proj)

    def transposed(self) -> tuple[bool, ...]:
        return False, False

    def check(self, width: int) -> None:
        given = tuple(self.in_proj.shape), tuple(self.out_proj.shape)
        heads = self.heads
        fit = heads > 0 and width % heads == 0 and not (self.rotary and width // heads % 2)
        if not fit or given != ((3 * width, width), (width, width)):
            raise ValueError(
                f"for x of width {width} in_proj must be {(3 * width, width)} and out_proj "
                f"{(width, width)}, and heads must divide the width, with RoPE into even parts; "
                f"got {given[0]}, {given[1]} and {heads} heads"
            )

    def has_room(self, length: int) -> bool:
        return is_small(length, self.out_proj.shape[0] // self.heads)

    def definition(self, x: Hidden, *, last: bool) -> ReadHidden:
        in_proj = partial(F.linear, weight=self.in_proj)
        out_proj = partial(F.linear, weight=self.out_proj)
        return attention_mixer_definition(
            x, in_proj, out_proj, self.heads, rotary=self.rotary, last=last
        )

    def saved(self, shape: Shape) -> dict[str, tuple[int, ...]]:
        batch, read, width = shape.batch, shape.read, shape.width
        return {
            "q": (batch, read, width),
            "kv": (batch, shape.length, 2 * width),
            "mixed": (batch, read, width),
            "softmax": (batch, self.heads, 2, read),
        }

    def arguments(self, shape: Shape) -> tuple[structs.SelfAttention, Tensor | None]:
        table = None
        if self.rotary:
            table = rotary_table_of(self.in_proj, shape.length, shape.width // self.heads)
        return structs.SelfAttention(
            batch=shape.batch,
            length=shape.length,
            width=shape.width,
            heads=self.heads,
            queries=shape.read,
            in_proj=self.in_proj.data_ptr(),
            out_proj=self.out_proj.data_ptr(),
            numbers=sum(w.numel() for w in self.weights()),
            **structs.rotary(table),
        ), table

    def work(self, shape: Shape) -> int:
        return shape.batch * shape.length * shape.width * shape.read // 16
