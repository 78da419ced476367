"""Causal self-attention, without positions or with rotary ones.

RoPE (Su et al. 2021, arXiv:2104.09864) turns each pair of a query's and of a key's numbers by
an angle proportional to the position (section 3.2.2, eq. 15), so a score depends on the
distance between the two alone.
Nothing here fixes a length: the angles are computed for the positions at hand.
"""

import torch
from einops import rearrange
from jaxtyping import Int64
from torch import Tensor, nn
from torch.nn import functional as F

from recall_arena.kernels import causal_attention, last_attention
from recall_arena.mixers.mixer import Mixer
from recall_arena.shapes import Heads, Hidden, LastHidden

Positions = Int64[Tensor, " length"]


def rotate(x: Heads, positions: Positions, base: float = 10_000.0) -> Heads:
    """Turn each head's numbers i and i + w / 2 by position * base^(-2i / w), w its width."""
    half = x.shape[-1] // 2
    frequency = base ** -(torch.arange(half, dtype=x.dtype, device=x.device) / half)
    angle = positions.to(x.dtype).unsqueeze(1) * frequency
    cos, sin = angle.cos(), angle.sin()
    left, right = x[..., :half], x[..., half:]
    return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)


class Attention(Mixer):
    """Softmax attention over the past; `rotary` adds RoPE.

    Raises ValueError if `heads` does not divide the width, or if a head's width is odd with RoPE.
    """

    def __init__(self, width: int, *, heads: int = 1, rotary: bool = False) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise ValueError(f"heads must divide the width {width}, got {heads}")
        if rotary and width // heads % 2:
            raise ValueError(f"RoPE turns pairs: a head's width must be even, got {width // heads}")
        self.heads = heads
        self.rotary = rotary
        self.in_proj = nn.Linear(width, 3 * width, bias=False)
        self.out_proj = nn.Linear(width, width, bias=False)

    def forward(self, x: Hidden) -> Hidden:
        q, k, v = map(self._split, self.in_proj(x).chunk(3, dim=-1))
        if self.rotary:
            positions = torch.arange(x.shape[1], device=x.device)
            q, k = rotate(q, positions), rotate(k, positions)
        return self.out_proj(self._merge(causal_attention(q, k, v)))

    def last(self, x: Hidden) -> LastHidden:
        width = x.shape[2]
        q = self._split(F.linear(x[:, -1:], self.in_proj.weight[:width]))
        k, v = map(self._split, F.linear(x, self.in_proj.weight[width:]).chunk(2, dim=-1))
        if self.rotary:
            positions = torch.arange(x.shape[1], device=x.device)
            q, k = rotate(q, positions[-1:]), rotate(k, positions)
        return self.out_proj(self._merge(last_attention(q, k, v))).squeeze(1)

    def state_size(self, context: int) -> int:
        return 2 * context * self.out_proj.in_features  # a key and a value for each token

    def _split(self, x: Hidden) -> Heads:
        return rearrange(
            x,
            "batch length (heads head_width) -> batch heads length head_width",
            heads=self.heads,
        )

    def _merge(self, x: Heads) -> Hidden:
        return rearrange(x, "batch heads length head_width -> batch length (heads head_width)")
