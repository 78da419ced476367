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

from recall_arena.kernels import structs
from recall_arena.kernels.causal_attention import causal_attention, is_small
from recall_arena.kernels.layer import Layer, Map, Shape, head
from recall_arena.kernels.rotary import BASE, rotary_table_of, rotate, xpos_tables
from recall_arena.shapes import Heads, Hidden, Queries, ReadHidden

Positions = Literal["none", "rope", "xpos"]
POSITIONS: tuple[Positions, ...] = ("none", "rope", "xpos")


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
    """Weights: in_proj has the rows of the queries, then those of the keys and of the values."""

    KIND = structs.Kind.ATTENTION

    in_proj: Float[Tensor, "three_widths width"]
    out_proj: Float[Tensor, "width width"]
    heads: int
    base: float | None = None  # of RoPE's angles; None: no positions

    def check(self, width: int) -> None:
        given = tuple(self.in_proj.shape), tuple(self.out_proj.shape)
        heads = self.heads
        fit = heads > 0 and width % heads == 0 and not (self.base and width // heads % 2)
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
            *(x, in_proj, out_proj, self.heads),
            positions="none" if self.base is None else "rope",
            base=self.base or BASE,
            last=last,
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
        if self.base is not None:
            head_width = shape.width // self.heads
            table = rotary_table_of(self.in_proj, shape.length, head_width, self.base)
        block = head(self, shape, self.in_proj, self.out_proj)
        return structs.SelfAttention(block=block, heads=self.heads, **structs.rotary(table)), table

    def work(self, shape: Shape) -> int:
        return shape.batch * shape.length * shape.width * shape.read // 16
