"""Causal self-attention, without positions or with rotary ones (RoPE)."""

from torch import nn

from recall_arena.kernels import AttentionLayer, attention_mixer_definition, mix
from recall_arena.mixers.mixer import Mixer
from recall_arena.shapes import Hidden, ReadHidden
from recall_arena.watching import stock, watched


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

    def forward(self, x: Hidden, last: bool = False) -> ReadHidden:
        layer = self.layer()
        if layer is not None:
            return mix(layer, x, last=last)
        return attention_mixer_definition(
            x, self.in_proj, self.out_proj, self.heads, rotary=self.rotary, last=last
        )

    def layer(self) -> AttentionLayer | None:
        projections = (self.in_proj, self.out_proj)
        plain = all(stock(each, nn.Linear, "weight") for each in projections)
        if type(self) is not Attention or not plain or watched(projections):
            return None
        weights = (self.in_proj.weight, self.out_proj.weight)
        return AttentionLayer(*weights, self.heads, self.rotary)

    def state_size(self, context: int) -> int:
        return 2 * context * self.out_proj.in_features  # a key and a value for each token
