"""What a run produced, as a value and as a line of JSON."""

import json
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import TypeAdapter


@dataclass(frozen=True)
class Tally:
    """Counts in columns: row i belongs to position i of `at`.

    at                steps of training, or context lengths
    total, correct    sequences, and right answers among them
    total_by_query    the same for each query; the order is that of the tokens
    total_repeats     the same for the sequences whose value is the query itself
    """

    at: list[int]
    total: list[int]
    correct: list[int]
    total_by_query: list[list[int]]
    correct_by_query: list[list[int]]
    total_repeats: list[int]
    correct_repeats: list[int]

    def accuracy(self) -> list[float]:
        """The share of right answers in each row, in 0..1."""
        return [right / all_ for right, all_ in zip(self.correct, self.total, strict=True)]

    def accuracy_at(self, position: int) -> float:
        """The share of right answers at one step or length; KeyError if it was not measured."""
        if position not in self.at:
            raise KeyError(f"nothing was measured at {position}")
        row = self.at.index(position)
        return self.correct[row] / self.total[row]


@dataclass(frozen=True)
class Outcome:
    """What a run found.  The same run finds the same, bit for bit, on the same platform.

    ended_by    "solved", the rule that ended it early; "budget"; or "diverged", a loss that is
                not finite
    steps       optimizer steps taken
    solved_at   the step of the first of the checks that met the rule, or None
    losses      the mean training loss between one check and the next
    checks      validation accuracy along training, by step, at the training context
    contexts    test accuracy after training, by context length
    """

    ended_by: Literal["solved", "budget", "diverged"]
    steps: int
    solved_at: int | None
    losses: list[float]
    checks: Tally
    contexts: Tally


@dataclass(frozen=True)
class Cost:
    """What a run took: trained numbers, numbers of state at the training context, seconds."""

    parameters: int
    state_size: int
    training_seconds: float
    evaluation_seconds: float


@dataclass(frozen=True)
class Provenance:
    """Where a record comes from; none of it decides the outcome but for rounding."""

    versions: dict[str, str]
    kernels: str
    threads: int
    machine: str
    finished: str


@dataclass(frozen=True)
class Record:
    """A run as JSON, its address, and what it produced."""

    address: str
    run: dict[str, Any]
    outcome: Outcome
    cost: Cost
    provenance: Provenance


class DamagedRecord(Exception):
    """A file does not hold the records that it should; the message names it and the reason."""


RECORD = TypeAdapter(Record)


def to_json(record: Record) -> bytes:
    """One line; unlike pydantic's own writer this one keeps infinite numbers."""
    return json.dumps(RECORD.dump_python(record), separators=(",", ":")).encode() + b"\n"
