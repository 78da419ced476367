"""Accuracy, as counts: at one context length, and at every length of a range."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass
from functools import reduce
from itertools import zip_longest
from operator import add
from typing import Any

import torch
from torch import Tensor

from recall_arena.config import added, frozen
from recall_arena.seeds import generator
from recall_arena.shapes import Logits, Where
from recall_arena.tasks.task import Batch, Task

LogitsOf = Callable[..., Logits]
"""(tokens) to the logits after the last of them, or (inputs, where) to those at the positions."""

TOKENS_AT_ONCE = 1 << 12  # few enough for the second-level cache at width 64
TOKENS_DRAWN = 1 << 22  # of a test set at once: 32 MiB


@dataclass(frozen=True)
class Counts:
    """How many answers were asked for and how many were right.

    Counts of several batches add up.

    by_query  the answers to queries 0, 1, ...; empty for a task that asks anywhere but after the
              last token
    repeats   those whose answer is the query itself
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

    def __add__(self, other: "Counts") -> "Counts":
        pairs = zip(astuple(self), astuple(other), strict=True)
        return Counts(*(_sum(one, two) for one, two in pairs))


def _sum(one: Any, two: Any) -> Any:
    """Of two counts, or of two lists of them, of which the shorter one has zeros behind."""
    if isinstance(one, int):
        return one + two
    return [a + b for a, b in zip_longest(one, two, fillvalue=0)]


@frozen
class Contexts:
    """The context lengths at which a trained model is tested: first, first + stride, ... last,
    or those that are listed.

    Attributes:
        first: tokens before the query; None is the shortest that the task allows
        last: the longest length
        stride: from one length to the next
        sequences: fresh ones a length, the same for every model
        at: these lengths alone, in place of first, last and stride

    Raises:
        ValueError: for a stride or a number of sequences below 1, lengths that do not rise
    """

    first: int | None = None
    last: int = 192
    stride: int = 1
    sequences: int = 1000
    at: tuple[int, ...] = added(default=())

    def __post_init__(self) -> None:
        for name in ("stride", "sequences"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if list(self.at) != sorted(set(self.at)):
            raise ValueError(f"at must rise from one length to the next, got {self.at}")

    @property
    def longest(self) -> int:
        """No length is longer."""
        return self.at[-1] if self.at else self.last

    def lengths(self, task: Task) -> Sequence[int]:
        """The lengths themselves, for a task."""
        if self.at:
            return self.at
        first = task.shortest_context if self.first is None else self.first
        return range(first, self.last + 1, self.stride)


def held_out(task: Task, context: int, sequences: int, purpose: str) -> Batch:
    """The sequences for `purpose`, "validation" or "test": a function of (task, context) alone."""
    return task.sample(sequences, context, generator(purpose, task, context))


def held_out_chunks(task: Task, context: int, sequences: int) -> Iterator[Batch]:
    """The test sequences of a length, few enough at a time that they fit into bounded memory."""
    size = max(1, TOKENS_DRAWN // context)
    yield held_out(task, context, min(size, sequences), "test")
    for begin in range(size, sequences, size):
        rng = generator("test", task, context, begin)
        yield task.sample(min(size, sequences - begin), context, rng)


@torch.inference_mode()
def accuracy(logits: LogitsOf, batch: Batch) -> Counts:
    """Count the right answers; the answer is the token with the largest logit."""
    size = max(1, TOKENS_AT_ONCE // batch.inputs.shape[1])
    guesses = torch.cat([_guesses(logits, each) for each in batch.split(size)])
    right = (guesses == batch.targets).flatten()
    query = batch.inputs.take_along_dim(batch.where, dim=1).flatten()
    repeats = batch.targets.flatten() == query
    queries = query if batch.asks_last else query[:0]
    return Counts(
        total=len(right),
        correct=int(right.sum()),
        total_by_query=queries.bincount().tolist(),
        correct_by_query=_right_by_query(queries, right),
        total_repeats=int(repeats.sum()),
        correct_repeats=int((repeats & right).sum()),
    )


def _right_by_query(queries: Tensor, right: Tensor) -> list[int]:
    """As many columns as there are queries, also if none of the last ones was answered right."""
    return queries.bincount(right[: len(queries)].double()).long().tolist()


def _guesses(logits: LogitsOf, batch: Batch) -> Where:
    if batch.asks_last:
        return logits(batch.tokens).argmax(dim=1, keepdim=True)
    return logits(batch.inputs, batch.where).argmax(dim=2)


def accuracy_by_context(
    logits: LogitsOf, task: Task, contexts: Contexts, begin: int = 0
) -> Iterator[tuple[int, Counts]]:
    """Yield (context length, counts) for each length, shortest first, on fresh test sequences.

    The first `begin` lengths are left out.
    """
    for length in contexts.lengths(task)[begin:]:
        batches = held_out_chunks(task, length, contexts.sequences)
        yield length, reduce(add, (accuracy(logits, batch) for batch in batches))
