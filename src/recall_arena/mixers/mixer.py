"""What a mixer is: a causal map (batch, length, width) -> (batch, length, width)."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from recall_arena.kernels import Layer
from recall_arena.shapes import Hidden, LastHidden

State = tuple[Tensor, ...]
"""What a mixer carries from one part of a sequence to the next."""


class Mixer(nn.Module, ABC):
    """Moves information from earlier positions to later ones, at any length."""

    continues = False
    """Whether a state of fixed size stands for the past, so that `continued` can go on from it."""

    @abstractmethod
    def forward(self, x: Hidden) -> Hidden:
        """Every position's output."""

    def last(self, x: Hidden) -> LastHidden:
        """The last position's output alone, for a layer of which nothing else is read."""
        return self.forward(x)[:, -1]

    def residual(self, x: Hidden, norm: nn.LayerNorm) -> Hidden:
        """Every position's x + mixer(norm(x)).

        A mixer whose kernel does all of it at once overrides this and `last_residual`; whoever
        then overrides its `forward` or `last` must override them too.
        """
        return x + self.forward(norm(x))

    def last_residual(self, x: Hidden, norm: nn.LayerNorm) -> LastHidden:
        """`residual` at the last position alone."""
        return x[:, -1] + self.last(norm(x))

    def layer(self, norm: nn.LayerNorm) -> Layer | None:
        """What `residual` is made of, if a kernel for whole models can do it; else None."""
        return None

    @abstractmethod
    def state_size(self, context: int) -> int:
        """How many numbers must be kept, after `context` tokens, to go on without them."""

    def continued(self, x: Hidden, state: State | None) -> tuple[Hidden, State]:
        """The outputs of a sequence's next positions, and the state after them; no gradients.

        `state` is that after the positions before, None at the start.  Raises NotImplementedError
        where no state of fixed size stands for the past.
        """
        raise NotImplementedError(
            f"{type(self).__name__} keeps every token of the past: a sequence cannot be worked "
            "through part by part"
        )
