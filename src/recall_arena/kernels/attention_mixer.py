"""Self-attention between its projections (Vaswani et al. 2017, arXiv:1706.03762, section 3.2).

    q, k, v = in_proj x                 each then by a function of its own, such as a convolution
    out     = out_proj attention(q, k, v)

`attention_mixer_definition` says what this means, `attended` its part between the projections;
`AttentionLayer` is what the compiled kernel is given.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from recall_arena.kernels import native, structs
from recall_arena.kernels.causal_attention import causal_attention, is_small
from recall_arena.kernels.causal_conv import linear_conv_definition
from recall_arena.kernels.layer import Layer, Map, Shape, head
from recall_arena.kernels.rotary import BASE, rotary_table_of, rotate, xpos_tables
from recall_arena.shapes import Heads, Hidden, Queries, ReadHidden

Window = Float[Tensor, "width 1 _"]

Positions = Literal["none", "rope", "xpos"]


def attention_mixer_definition(
    x: Hidden,
    in_proj: Map,
    out_proj: Map,
    heads: int,
    *,
    positions: Positions = "none",
    base: float = BASE,
    each: Sequence[Map | None] = (None, None, None),
    last: bool = False,
) -> ReadHidden:
    """The equations.  Any float type, any device.

    The projections are functions, so that modules serve as well as weights; those of `each`,
    (batch, length, width) -> same, stand between in_proj and q, k and v, where there are any.
    `base` is that of the angles of RoPE and xPos.
    """
    q, k, v = projected(x, in_proj, each)
    return out_proj(attended(q[:, -1:] if last else q, k, v, heads, positions, base))


def projected(x: Hidden, in_proj: Map, each: Sequence[Map | None]) -> tuple[Hidden, ...]:
    """Queries, keys and values, (batch, length, width) each."""
    parts = zip(in_proj(x).chunk(3, dim=2), each, strict=True)
    return tuple(part if map_ is None else map_(part) for part, map_ in parts)


def attended(
    q: ReadHidden, k: Hidden, v: Hidden, heads: int, positions: Positions, base: float
) -> ReadHidden:
    """What each query, of which q has those of the last positions or all, makes of the values."""
    q, k, v = (split_heads(x, heads) for x in (q, k, v))
    if positions == "rope":  # the kernel rotates
        table = rotary_table_of(k, k.shape[2], k.shape[3], base)
        mixed = causal_attention(q, k, v, table)
    else:
        mixed = causal_attention(*positioned(q, k, positions, base), v)
    return mixed.transpose(1, 2).flatten(2)


def split_heads(x: ReadHidden, heads: int) -> Queries:
    """(batch, read, width) as (batch, heads, read, head_width)."""
    return x.unflatten(2, (heads, x.shape[2] // heads)).transpose(1, 2)


def positioned(q: Queries, k: Heads, positions: Positions, base: float) -> tuple[Queries, Heads]:
    """Queries, those of the last positions or all, and keys as they meet: rotated, if at all."""
    length, head_width = k.shape[2:]
    match positions:
        case "none":
            return q, k
        case "rope":
            of_q = of_k = rotary_table_of(k, length, head_width, base)
        case "xpos":
            of_q, of_k = xpos_tables(k, length, head_width, base)
    return rotate(q, of_q[:, length - q.shape[2] :]), rotate(k, of_k)


@dataclass(frozen=True)
class AttentionLayer(Layer):
    """Weights: in_proj has the rows of the queries, then those of the keys and of the values.

    Biases and convolutions that are not there are None; base is None where there is no RoPE.
    """

    KIND = structs.Kind.ATTENTION
    TRANSPOSED = frozenset({"q_conv", "k_conv", "v_conv"})

    in_proj: Float[Tensor, "three_widths width"]
    in_bias: Float[Tensor, " three_widths"] | None
    q_conv: Window | None
    k_conv: Window | None
    v_conv: Window | None
    out_proj: Float[Tensor, "width width"]
    out_bias: Float[Tensor, " width"] | None
    heads: int
    base: float | None

    def check(self, width: int) -> None:
        expected = {
            "in_proj": (3 * width, width),
            "in_bias": (3 * width,),
            "out_proj": (width, width),
            "out_bias": (width,),
        }
        for name, weight in self.named_weights().items():
            shape = expected.get(name, (width, 1, weight.shape[-1]))
            if weight.shape != shape:
                got = tuple(weight.shape)
                raise ValueError(f"for x of width {width} {name} must be {shape}, got {got}")
        heads = self.heads
        if heads < 1 or width % heads or (self.base is not None and width // heads % 2):
            raise ValueError(
                f"heads must divide the width {width}, with RoPE into even parts; got {heads}"
            )

    @property
    def _convolutions(self) -> dict[str, Tensor | None]:
        return {"q": self.q_conv, "k": self.k_conv, "v": self.v_conv}

    def has_room(self, length: int) -> bool:
        convolutions = (conv for conv in self._convolutions.values() if conv is not None)
        small = all(conv.shape[2] <= native.LARGEST_WINDOW for conv in convolutions)
        return small and is_small(length, self.out_proj.shape[0] // self.heads)

    def definition(self, x: Hidden, *, last: bool) -> ReadHidden:
        in_proj = partial(F.linear, weight=self.in_proj, bias=self.in_bias)
        out_proj = partial(F.linear, weight=self.out_proj, bias=self.out_bias)
        return attention_mixer_definition(
            *(x, in_proj, out_proj, self.heads),
            positions="none" if self.base is None else "rope",
            base=self.base or BASE,
            each=[
                None if conv is None else partial(linear_conv_definition, weight=conv.squeeze(1))
                for conv in self._convolutions.values()
            ],
            last=last,
        )

    def saved(self, shape: Shape) -> dict[str, tuple[int, ...]]:
        batch, read, width = shape.batch, shape.read, shape.width
        return {
            "q": (batch, read if self.q_conv is None else shape.length, width),
            "kv": (batch, shape.length, 2 * width),
            "mixed": (batch, read, width),
            "softmax": (batch, self.heads, 2, read),
        }

    def arguments(self, shape: Shape) -> tuple[structs.SelfAttention, Tensor | None]:
        table = None
        if self.base is not None:
            head_width = shape.width // self.heads
            table = rotary_table_of(self.in_proj, shape.length, head_width, self.base)
        block = head(self, shape, self.in_proj, self.out_proj, self.in_bias, self.out_bias)
        fields = structs.rotary(table)
        for name, conv in self._convolutions.items():
            if conv is not None:
                fields |= {f"{name}_conv": conv.data_ptr(), f"{name}_window": conv.shape[2]}
        return structs.SelfAttention(block=block, heads=self.heads, **fields), table

    def work(self, shape: Shape) -> int:
        return shape.batch * shape.length * shape.width * shape.read // 16
