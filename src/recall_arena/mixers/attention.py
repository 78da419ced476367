"""Causal self-attention, without positions or with rotary ones (RoPE)."""

import torch
from torch import Tensor, nn

from recall_arena.kernels import attention_mixer, rotary_angles
from recall_arena.mixers.mixer import Mixer
from recall_arena.shapes import Hidden, LastHidden


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
        return attention_mixer(x, *self._weights(), self.heads, self._angles(x))

    def last(self, x: Hidden) -> LastHidden:
        y = attention_mixer(x, *self._weights(), self.heads, self._angles(x), queries=1)
        return y.squeeze(1)

    def state_size(self, context: int) -> int:
        return 2 * context * self.out_proj.in_features  # a key and a value for each token

    def _weights(self) -> tuple[Tensor, Tensor]:
        return self.in_proj.weight, self.out_proj.weight

    def _angles(self, x: Hidden) -> Tensor | None:
        if not self.rotary:
            return None
        positions = torch.arange(x.shape[1], dtype=x.dtype, device=x.device)
        return rotary_angles(positions, x.shape[2] // self.heads)
