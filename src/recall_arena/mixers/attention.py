"""Causal self-attention, without positions or with rotary ones (RoPE)."""

from torch import Tensor, nn

from recall_arena.kernels import AttentionLayer, Norm, attention_mixer, kept_rotary_table
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
        return self._mixed(x, None, None)

    def last(self, x: Hidden) -> LastHidden:
        return self._mixed(x, 1, None).squeeze(1)

    def residual(self, x: Hidden, norm: nn.LayerNorm) -> Hidden:
        return self._mixed(x, None, norm)

    def last_residual(self, x: Hidden, norm: nn.LayerNorm) -> LastHidden:
        return self._mixed(x, 1, norm).squeeze(1)

    def layer(self, norm: nn.LayerNorm) -> AttentionLayer | None:
        if type(self) is not Attention:  # a subclass may compute something else
            return None
        in_proj, out_proj = self.in_proj.weight, self.out_proj.weight
        return AttentionLayer(in_proj, out_proj, Norm.of(norm), self.heads, self.rotary)

    def state_size(self, context: int) -> int:
        return 2 * context * self.out_proj.in_features  # a key and a value for each token

    def _mixed(self, x: Hidden, queries: int | None, norm: nn.LayerNorm | None) -> Tensor:
        rotary = None
        if self.rotary:
            rotary = kept_rotary_table(x.shape[1], x.shape[2] // self.heads, x.dtype, x.device)
        return attention_mixer(
            *(x, self.in_proj.weight, self.out_proj.weight, self.heads),
            rotary=rotary,
            queries=queries,
            norm=None if norm is None else Norm.of(norm),
        )
