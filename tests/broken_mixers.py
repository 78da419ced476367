"""Mixers, each of which breaks one promise and no other."""

import torch
from torch import Tensor, nn

from recall_arena.config import frozen
from recall_arena.mixers import Mixer, MixerOptions

State = tuple[Tensor, ...]


def running_sum(x: Tensor, before: Tensor | None = None) -> Tensor:
    return x.cumsum(dim=1) + (0 if before is None else before)


class Sound(nn.Module):
    """No Mixer, and keeps every promise that such a module can."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return running_sum(self.linear(x))


class LooksAhead(Sound):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 1e-9 * x.sum(dim=1, keepdim=True)


class PeeksWithoutGradient(Sound):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + x.detach().amax(dim=1, keepdim=True)


class MixesTheBatch(Sound):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x - x.mean(dim=0, keepdim=True))


class NeedsTwoTokens(Sound):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / (x.shape[1] - 1)


class DrawsAnew(Sound):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.rand(())


class DropsOut(Sound):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (2 if self.training else 1)


class ForgetsAWeight(Sound):
    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.unused = nn.Parameter(torch.ones(3))


class HasAnotherGradient(Sound):
    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        return out + (out - out.detach()) * 0.01


class RoundsToHalf(Sound):
    def forward(self, x: Tensor) -> Tensor:
        exact = x.dtype == torch.float64
        return super().forward(x) if exact else super().forward(x).half().float()


class SoundMixer(Mixer):
    continues = True

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, x: Tensor, last: bool = False) -> Tensor:
        out = running_sum(self.linear(x))
        return out[:, -1:] if last else out

    def continued(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        out = running_sum(self.linear(x), None if state is None else state[0])
        return out, (out[:, -1:],)

    def state_size(self, context: int) -> int:
        return self.linear.out_features


class LastIsAnother(SoundMixer):
    def forward(self, x: Tensor, last: bool = False) -> Tensor:
        return super().forward(x)[:, -1:] * 1.001 if last else super().forward(x)


class ContinuesElsewhere(SoundMixer):
    def continued(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        out, (end,) = super().continued(x, state)
        return out, (end * 0.5,)


class ClaimsTooLittle(SoundMixer):
    def state_size(self, context: int) -> int:
        return self.linear.out_features - 1


@frozen
class Options(MixerOptions):
    """Options whose mixer keeps every promise, at even widths from 4 on."""

    def build(self, width: int) -> SoundMixer:
        if width < 4:
            raise ValueError(f"width must be at least 4, got {width}")
        return SoundMixer(width)


class Undecorated(Options):
    more: int


SOMETHING_ELSE = 3
