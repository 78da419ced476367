"""What a mixer is: a causal map (batch, length, width) -> (batch, length, width).

`MixerOptions` says which one, as a value; the `Mixer` that it builds has the weights.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from recall_arena.config import frozen
from recall_arena.kernels import Layer
from recall_arena.marks import Marked
from recall_arena.shapes import Hidden, ReadHidden
from recall_arena.watching import beside_forward, remember

State = tuple[Tensor, ...]
"""What a mixer carries from one piece of a sequence to the next, (batch, ...) each."""


class Mixer(Marked, ABC):
    """Moves information from earlier positions to later ones, at any length."""

    @property
    def continues(self) -> bool:
        """Whether `continued` needs no more memory after a long past than after a short one."""
        return False

    def __init_subclass__(cls) -> None:
        """A class whose `forward` is not the one that an inherited `continues`, `continued` or
        `inspected` was written beside, because it or a mixin has another, inherits none of them."""
        for name in ("continues", "continued", "inspected"):
            if not beside_forward(cls, name):
                setattr(cls, name, vars(Mixer)[name])
        remember(cls)

    @abstractmethod
    def forward(self, x: Hidden, last: bool = False) -> ReadHidden:
        """Every position's output, or with `last` that of the last one alone, (batch, 1, width)."""

    @abstractmethod
    def state_size(self, context: int) -> int:
        """How many numbers must be kept, after `context` tokens, to go on without them."""

    def layer(self) -> Layer | None:
        """What a compiled kernel is given to compute `forward`; None if it would not be the same.

        None for a subclass, and where a part has been replaced or somebody watches it.
        """
        return None

    def mark(self) -> None:
        """Set the marks of weights that are not to be decayed or initialised again: `marks.py`."""

    def continued(self, x: Hidden, state: State | None) -> tuple[Hidden, State]:
        """The outputs of a sequence's next positions, and the state after them.

        `state` is that after the positions before, None at the start; what it consists of is the
        mixer's own affair, with the batch as its first axis.  Gradients flow, to the state too.
        """
        return recomputed(self, x, state)

    def inspected(self, x: Hidden) -> dict[str, Tensor]:
        """What stands between input and output, by the names of the mixer's equations.

        Plain PyTorch, at every position; gradients flow.  Empty unless a mixer says something.
        """
        return {}


def recomputed(causal: nn.Module, x: Hidden, state: State | None) -> tuple[Hidden, State]:
    """`Mixer.continued` of any causal map: all inputs are kept, and it is given all of them again.

    The state is the inputs so far (batch, length, width).
    """
    seen = x if state is None else torch.cat([*state, x], dim=1)
    return causal(seen)[:, seen.shape[1] - x.shape[1] :], (seen,)


@frozen
class MixerOptions(ABC):
    """Everything that decides a mixer's function but its width and its weights."""

    @abstractmethod
    def build(self, width: int) -> Mixer:
        """The mixer for vectors of `width` numbers, untrained.

        Raises ValueError where `check` does.
        """

    def check(self, width: int) -> None:
        """Raises ValueError if the mixer cannot have that width."""
        if width < 1:
            raise ValueError(f"width must be at least 1, got {width}")


def check_positive(options: MixerOptions, *names: str) -> None:
    """Raises ValueError if one of these options is below 1."""
    for name in names:
        if getattr(options, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(options, name)}")
