"""What a run produced, as a value."""

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, with_config

_AS_WRITTEN = ConfigDict(extra="forbid", strict=True)


@with_config(_AS_WRITTEN)
@dataclass(frozen=True)
class Tally:
    """Counts in columns: row i belongs to position i of `at`.

    at                steps of training, or context lengths
    total, correct    answers asked for, and right ones among them
    total_by_query    the same for each query; the order is that of the tokens
    total_repeats     the same for the answers that are the query itself

    Those by query are empty for a task whose answers are not each asked for by one last token.
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


@with_config(_AS_WRITTEN)
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


@with_config(_AS_WRITTEN)
@dataclass(frozen=True)
class Cost:
    """What a run took: trained numbers, numbers of state at the training context, seconds."""

    parameters: int
    state_size: int
    training_seconds: float
    evaluation_seconds: float


@with_config(_AS_WRITTEN)
@dataclass(frozen=True)
class Provenance:
    """Where a record comes from; none of it decides the outcome but for rounding.

    versions         of Python and of packages, by name
    kernels          which kernels ran
    threads          those of the run
    machine          operating system and processor architecture, and an accelerator's name
    finished         when, as ISO 8601
    kernels_build    a hash of the sources of the compiled kernels, or None without them
    package_build    a hash of the package's own sources
    modules          those of other packages that the task and the mixers come from

    The last three are None in records of versions that did not write them.
    """

    versions: dict[str, str]
    kernels: str
    threads: int
    machine: str
    finished: str
    kernels_build: str | None = None
    package_build: str | None = None
    modules: list[str] | None = None


@with_config(_AS_WRITTEN)
@dataclass(frozen=True)
class Record:
    """A run as JSON, its address, what it produced, and a hash of the trained weights.

    `weights` is None in records of versions that did not write it.
    """

    address: str
    run: dict[str, Any]
    outcome: Outcome
    cost: Cost
    provenance: Provenance
    weights: str | None = None


RECORD = TypeAdapter(Record)
