"""What a task is: a distribution over (tokens, answer), at any context length."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch

from recall_arena.config import frozen
from recall_arena.shapes import Answers, Tokens


@dataclass(frozen=True)
class Batch:
    """tokens (batch, context + 1), the query last; answers (batch,)."""

    tokens: Tokens
    answers: Answers


@frozen
class Task(ABC):
    """A frozen dataclass whose fields say everything about the distribution.

    `vocabulary` counts the tokens; queries are tokens 0 .. queries - 1.
    """

    @property
    @abstractmethod
    def shortest_context(self) -> int:
        """The fewest tokens before the query with which the task has an answer."""

    @abstractmethod
    def sample(self, batch: int, context: int, rng: torch.Generator) -> Batch:
        """Draw fresh sequences with `context` tokens before the query.

        Raises ValueError if the context is too short for the task.
        """
