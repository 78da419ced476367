"""What a task is: a distribution over (inputs, targets, where), at any context length."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch

from recall_arena.config import frozen
from recall_arena.shapes import Answers, Tokens, Where


@dataclass(frozen=True)
class Batch:
    """Sequences of tokens, and what is right after some of their positions.

    inputs   (batch, length)
    targets  (batch, asked)
    where    (batch, asked), the positions that are asked, in 0..length - 1

    Raises ValueError for any other numbers than int64: models embed tokens, and the loss is the
    cross-entropy of the next one.
    """

    inputs: Tokens
    targets: Where
    where: Where

    def __post_init__(self) -> None:
        for name in ("inputs", "targets", "where"):
            if (kind := getattr(self, name).dtype) != torch.int64:
                raise ValueError(f"{name} must be int64, tokens and their positions, got {kind}")

    @classmethod
    def asked_last(cls, tokens: Tokens, answers: Answers) -> "Batch":
        """One answer (batch,) after the last token of each sequence."""
        where = torch.full((len(tokens), 1), tokens.shape[1] - 1)
        return cls(tokens, answers.unsqueeze(1), where)

    @property
    def asks_last(self) -> bool:
        """Whether just one answer is asked for, after the last token."""
        last = self.inputs.shape[1] - 1
        return self.where.shape[1] == 1 and bool((self.where == last).all())

    @property
    def tokens(self) -> Tokens:
        """The inputs, by the name that they have where the last one is the query."""
        return self.inputs

    @property
    def answers(self) -> Answers:
        """The answer (batch,) that follows the last token.

        Raises ValueError where others are asked for; `targets` has all.
        """
        if not self.asks_last:
            raise ValueError("there is not just one answer, after the last token: see `targets`")
        return self.targets[:, 0]

    def split(self, size: int) -> "list[Batch]":
        """Batches of `size` sequences; the last one has what is left."""
        columns = (self.inputs.split(size), self.targets.split(size), self.where.split(size))
        return [Batch(*rows) for rows in zip(*columns, strict=True)]


@frozen
class Task(ABC):
    """A frozen dataclass whose fields say everything about the distribution.

    `vocabulary` counts the tokens.  A task that asks for the first tokens, 0 .. queries - 1, one
    by one has a field `queries`: results are then counted for each of them as well.
    """

    @property
    @abstractmethod
    def shortest_context(self) -> int:
        """The shortest context with which the task has an answer."""

    @abstractmethod
    def sample(self, batch: int, context: int, rng: torch.Generator) -> Batch:
        """Draw fresh sequences of this context: by default the tokens before a final query.

        Raises ValueError if the context is too short for the task.
        """

    def sample_to_train(self, batch: int, context: int, rng: torch.Generator) -> Batch:
        """The same to learn from, where that asks for more than tests do."""
        return self.sample(batch, context, rng)

    def growing(self, name: str, context: int) -> tuple[int, int] | None:
        """The first and the last value that a number of the task has in a curriculum over it.

        By default from 1 to the present one; None for what is no number.
        """
        value = getattr(self, name)
        return (1, value) if type(value) is int else None

    def check_context(self, context: int) -> None:
        """Raises ValueError if the context is too short for the task."""
        if context < self.shortest_context:
            raise ValueError(
                f"context must be at least {self.shortest_context} with {self}, got {context}"
            )
