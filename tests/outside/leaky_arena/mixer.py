"""A leaky average of the past: h_t = keep h_{t-1} + W x_t, y_t = V h_t."""

import torch
from torch import Tensor, nn

from recall_arena.config import frozen
from recall_arena.mixers import Mixer, MixerOptions


@frozen
class Leaky(MixerOptions):
    """A leaky average.

    Attributes:
        keep: the share of the state that is left a position later
    """

    keep: float = 0.9

    def build(self, width: int) -> "LeakyMixer":
        return LeakyMixer(width, self.keep)


class LeakyMixer(Mixer):
    continues = True

    def __init__(self, width: int, keep: float) -> None:
        super().__init__()
        self.keep = keep
        self.in_proj = nn.Linear(width, width, bias=False)
        self.out_proj = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, last: bool = False) -> Tensor:
        h = self._states(x, x.new_zeros(len(x), 1, x.shape[2]))
        return self.out_proj(h[:, -1:] if last else h)

    def continued(
        self, x: Tensor, state: tuple[Tensor, ...] | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        before = x.new_zeros(len(x), 1, x.shape[2]) if state is None else state[0]
        h = self._states(x, before)
        return self.out_proj(h), (h[:, -1:],)

    def state_size(self, context: int) -> int:
        return self.in_proj.out_features

    def _states(self, x: Tensor, before: Tensor) -> Tensor:
        positions = torch.arange(x.shape[1], dtype=x.dtype)
        apart = positions.unsqueeze(1) - positions
        weights = torch.where(apart >= 0, self.keep ** apart.clamp(min=0), 0.0)
        left = self.keep ** (positions + 1)
        return weights @ self.in_proj(x) + left.unsqueeze(1) * before
