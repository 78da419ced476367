"""Accuracy, as counts: at one context length, and at every length of a range."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from recall_arena.config import frozen
from recall_arena.seeds import generator
from recall_arena.shapes import Logits, Tokens
from recall_arena.tasks.task import Batch, Task

LogitsOf = Callable[[Tokens], Logits]
"""The logits after the last of the tokens."""

TOKENS_AT_ONCE = 1 << 12  # few enough for the second-level cache at width 64


@dataclass(frozen=True)
class Counts:
    """How many answers were asked for and how many were right.

    by_query  for queries 0, 1, ...: those with that query
    repeats   those whose value is the query itself
    """

    total: int
    correct: int
    total_by_query: list[int]
    correct_by_query: list[int]
    total_repeats: int
    correct_repeats: int

    @property
    def accuracy(self) -> float:
        """The share of right answers, in 0..1."""
        return self.correct / self.total


@frozen
class Contexts:
    """The context lengths at which a trained model is tested: first, first + stride, ... last.

    Attributes:
        first: tokens before the query; None is the shortest that the task allows
        last: the longest length
        stride: from one length to the next
        sequences: fresh ones a length, the same for every model

    Raises:
        ValueError: for a stride or a number of sequences below 1
    """

    first: int | None = None
    last: int = 192
    stride: int = 1
    sequences: int = 1000

    def __post_init__(self) -> None:
        for name in ("stride", "sequences"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    def lengths(self, task: Task) -> range:
        """The lengths themselves, for a task."""
        first = task.shortest_context if self.first is None else self.first
        return range(first, self.last + 1, self.stride)


def held_out(task: Task, context: int, sequences: int, purpose: str) -> Batch:
    """The sequences for `purpose`, "validation" or "test": a function of (task, context) alone."""
    return task.sample(sequences, context, generator(purpose, task, context))


@torch.inference_mode()
def accuracy(logits: LogitsOf, batch: Batch) -> Counts:
    """Count the right answers; the answer is the token with the largest logit."""
    size = max(1, TOKENS_AT_ONCE // batch.tokens.shape[1])
    guesses = torch.cat([logits(tokens).argmax(dim=1) for tokens in batch.tokens.split(size)])
    right = guesses == batch.answers
    query = batch.tokens[:, -1]
    repeats = batch.answers == query
    return Counts(
        total=len(right),
        correct=int(right.sum()),
        total_by_query=query.bincount().tolist(),
        correct_by_query=query[right].bincount(minlength=int(query.max()) + 1).tolist(),
        total_repeats=int(repeats.sum()),
        correct_repeats=int((repeats & right).sum()),
    )


def accuracy_by_context(
    logits: LogitsOf, task: Task, contexts: Contexts
) -> Iterator[tuple[int, Counts]]:
    """Yield (context length, counts) for each length, shortest first, on fresh test sequences."""
    for length in contexts.lengths(task):
        yield length, accuracy(logits, held_out(task, length, contexts.sequences, "test"))
