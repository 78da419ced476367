"""What a mixer is: a causal map (batch, length, width) -> (batch, length, width)."""

from abc import ABC, abstractmethod

from torch import nn

from recall_arena.shapes import Hidden, LastHidden


class Mixer(nn.Module, ABC):
    """Moves information from earlier positions to later ones, at any length."""

    @abstractmethod
    def forward(self, x: Hidden) -> Hidden:
        """Every position's output."""

    def last(self, x: Hidden) -> LastHidden:
        """The last position's output alone, for a layer of which nothing else is read."""
        return self.forward(x)[:, -1]

    @abstractmethod
    def state_size(self, context: int) -> int:
        """How many numbers must be kept, after `context` tokens, to go on without them."""
