"""What a trained model answers on associative recall: what it binds, where and how it errs.

All on test sequences of one length whose value is not the query, so that a right answer is recall.
Each table has a row for what it is about, and counts over the sequences.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import polars as pl
import torch
from torch import Tensor

from recall_arena.evaluation import held_out
from recall_arena.model import SequenceModel
from recall_arena.seeds import generator
from recall_arena.shapes import Tokens
from recall_arena.tasks import AssociativeRecall

AT_ONCE = 50
"""Sequences whose inner tensors are in memory together."""


@dataclass(frozen=True)
class Sequences:
    """Sequences (batch, context + 1) with values that are not the query, and where they stand."""

    tokens: Tokens
    first: Tensor  # (batch,), the position of the query's first appearance
    delay: int
    vocabulary: int

    @classmethod
    def of(cls, task: AssociativeRecall, context: int, number: int) -> "Sequences":
        """The test sequences of a length, without those whose value is the query."""
        batch = held_out(task, context, number, "test")
        tokens = batch.tokens[batch.answers != batch.tokens[:, -1]]
        first = (tokens[:, :-1] == tokens[:, -1:]).int().argmax(dim=1)
        return cls(tokens, first, task.delay, task.vocabulary)

    @property
    def query(self) -> Tensor:
        """The token that is asked for."""
        return self.tokens[:, -1]

    @property
    def value(self) -> Tensor:
        """The right answer."""
        return self.at(self.delay)

    def at(self, offset: int) -> Tensor:
        """The token at an offset, -1 where the context has none there."""
        place, inside = self.places(offset)
        return torch.where(inside, self.tokens.gather(1, place[:, None])[:, 0], -1)

    def places(self, offset: int) -> tuple[Tensor, Tensor]:
        """The position at an offset, and whether the context has one; where not, any."""
        last, place = self.tokens.shape[1] - 1, self.first + offset
        return place.clamp(0, last), (place >= 0) & (place < last)

    def rebound(self) -> "Sequences":
        """The same with another value, neither the old one nor the query.

        Raises ValueError where there is no third token.
        """
        if self.vocabulary < 3:
            raise ValueError(
                "a value that is neither the old one nor the query needs a vocabulary of at least "
                f"3, got {self.vocabulary}"
            )
        rng = generator("rebound", self.tokens.shape[1], self.delay, self.vocabulary)
        low, high = (f(self.query, self.value) for f in (torch.minimum, torch.maximum))
        value = torch.randint(self.vocabulary - 2, (len(self.tokens),), generator=rng)
        value = value + (value >= low)
        value = value + (value >= high)
        tokens = self.tokens.scatter(1, (self.first + self.delay)[:, None], value[:, None])
        return replace(self, tokens=tokens)

    def split(self) -> Iterator["Sequences"]:
        """A few at a time."""
        for tokens, first in zip(
            self.tokens.split(AT_ONCE), self.first.split(AT_ONCE), strict=True
        ):
            yield replace(self, tokens=tokens, first=first)


def answers(model: SequenceModel, asked: Sequences) -> Tensor:
    """The token with the largest logit, of each sequence."""
    with torch.inference_mode():
        return torch.cat([model(part.tokens).argmax(dim=1) for part in asked.split()])


def by_distance(asked: Sequences, answered: Tensor) -> pl.DataFrame:
    """Columns distance, from the pair to the end, asked and correct."""
    distance = asked.tokens.shape[1] - 1 - asked.first
    return _counted("distance", distance, answered == asked.value)


def by_query(asked: Sequences, answered: Tensor) -> pl.DataFrame:
    """Columns query, asked and correct."""
    return _counted("query", asked.query, answered == asked.value)


def _counted(name: str, values: Tensor, right: Tensor) -> pl.DataFrame:
    rows = pl.DataFrame({name: values.numpy(), "right": right.numpy()})
    return rows.group_by(name).agg(asked=pl.len(), correct=pl.col("right").sum()).sort(name)


def errors(asked: Sequences, answered: Tensor) -> pl.DataFrame:
    """Columns answer and number: what wrong answers are, each counted where it first fits."""
    left = answered != asked.value
    inside = (asked.tokens[:, :-1] == answered[:, None]).sum(dim=1)
    counts = torch.stack([(asked.tokens[:, :-1] == t).sum(1) for t in range(asked.vocabulary)])
    rows = []
    for name, fits in (
        ("the query itself", answered == asked.query),
        ("the token after the value", answered == asked.at(asked.delay + 1)),
        ("the token before the value", answered == asked.at(asked.delay - 1)),
        ("the most frequent token", inside == counts.amax(dim=0)),
        ("another token of the context", inside > 0),
        ("a token that is not in the context", inside == 0),
    ):
        rows.append((name, int((left & fits).sum())))
        left = left & ~fits
    return pl.DataFrame(rows, schema=["answer", "number"], orient="row")


def rebinding(model: SequenceModel, asked: Sequences, answered: Tensor) -> dict[str, int]:
    """What becomes of right answers when the value in the context is another one.

    A model that binds follows to the new value; one that knows the old one by other means stays.
    """
    right = answered == asked.value
    again = asked.rebound()
    changed = answers(model, again)
    follows, stays = changed == again.value, changed == asked.value
    return {
        "asked": int(right.sum()),
        "follow": int((right & follows).sum()),
        "stay": int((right & stays).sum()),
        "else": int((right & ~follows & ~stays).sum()),
    }
