"""What a command is, and what it raises for a mistake in what was typed."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar


class Command(ABC):
    """A parsed command: a frozen dataclass whose fields are its flags."""

    goes_on: ClassVar[bool] = False
    """Whether a command that was stopped goes on where it was when it is called again."""

    @classmethod
    def spelled(cls, words: Sequence[str]) -> "type[Command]":
        """The class whose flags these words are, where a word decides which flags there are.

        Raises Mistake for a word that cannot be meant.
        """
        return cls

    @abstractmethod
    def run(self) -> int:
        """Do it, and return the exit code.  Raises Mistake for what cannot be meant."""


class Mistake(Exception):
    """Shown as one line, exit code 2; the message says what was given and what is allowed."""
