"""The records of a plan, by setting, and the statistics that findings and tables quote."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from recall_arena.figures import Series
from recall_arena.intervals import wilson
from recall_arena.records import Record, Store, Tally
from recall_arena.runs import Run
from recall_arena.studies.assignment.rates import chosen_rates
from recall_arena.studies.assignment.settings import (
    CONTEXT,
    LONGEST,
    SCALES,
    SETTINGS,
    VOCABULARY,
    Setting,
)
from recall_arena.studies.study import Plan
from recall_arena.zoo import ZOO

CHANCE = 1 / VOCABULARY


def setting_runs(setting: Setting, plan: Plan) -> list[Run]:
    """The runs of a setting, a seed each, at the rate that the search chose."""
    scale = SCALES[plan.scale]
    rate, steps = chosen_rates()[setting.key], scale.steps[setting.problem]
    return [setting.run(rate, steps, seed, scale.contexts) for seed in range(plan.seeds)]


@dataclass(frozen=True)
class Results:
    """What is known of a plan: the finished records of each setting, in their seeds' order."""

    plan: Plan
    records: dict[Setting, list[Record]]

    @classmethod
    def read(cls, plan: Plan, store: Store) -> "Results":
        return cls(
            plan,
            {
                setting: store.read_all(run.address for run in setting_runs(setting, plan))
                for setting in SETTINGS
            },
        )

    def select(
        self,
        problem: int,
        *,
        model: str | None = None,
        queries: int | None = None,
        delay: int | None = None,
    ) -> "list[Result]":
        """The results of a problem, those with these values alone, in the settings' order."""
        wanted = ((model, "model"), (queries, "queries"), (delay, "delay"))
        return [
            Result(setting, tuple(records), self.budget(problem))
            for setting, records in self.records.items()
            if setting.problem == problem
            and all(value in (None, getattr(setting, name)) for value, name in wanted)
        ]

    def budget(self, problem: int) -> int:
        return SCALES[self.plan.scale].steps[problem]


@dataclass(frozen=True)
class Result:
    """One setting's finished records; `budget` is the most steps that each of them had."""

    setting: Setting
    records: tuple[Record, ...]
    budget: int

    def __bool__(self) -> bool:
        return bool(self.records)

    @property
    def label(self) -> str:
        return ZOO[self.setting.model].label

    @property
    def recurrent(self) -> bool:
        """Whether the model has a Mamba layer."""
        return ZOO[self.setting.model].recurrent

    @property
    def contexts(self) -> tuple[Tally, ...]:
        return tuple(record.outcome.contexts for record in self.records)

    @property
    def checks(self) -> tuple[Tally, ...]:
        return tuple(record.outcome.checks for record in self.records)

    def series(self, *, training: bool, variant: str = "", dashed: bool = False) -> Series:
        """The curve of this setting: along training, or over context lengths."""
        tallies = self.checks if training else self.contexts
        return Series(self.setting.model, tallies, variant, dashed)

    @property
    def solved(self) -> int:
        """How many of the seeds met the rule "solved"."""
        return sum(record.outcome.ended_by == "solved" for record in self.records)

    @property
    def all_solved(self) -> bool:
        return bool(self.records) and self.solved == len(self.records)

    @property
    def steps_to_solve(self) -> float | None:
        """The seeds' median of the step at which the rule began to hold; None if some did not."""
        steps = [record.outcome.solved_at for record in self.records]
        known = [step for step in steps if step is not None]
        return float(statistics.median(known)) if known and len(known) == len(steps) else None

    def counts(self, lengths: Iterable[int]) -> tuple[int, int]:
        """Right answers and sequences over test lengths and seeds; not tested ones add nothing."""
        wanted = set(lengths)
        rows = [
            (correct, total)
            for tally in self.contexts
            for at, correct, total in zip(tally.at, tally.correct, tally.total, strict=True)
            if at in wanted
        ]
        return sum(row[0] for row in rows), sum(row[1] for row in rows)

    def accuracy(self, lengths: Iterable[int]) -> float:
        """The share of right answers over test lengths and seeds; nan if none was tested."""
        correct, total = self.counts(lengths)
        return correct / total if total else float("nan")

    @property
    def at_training_length(self) -> float:
        return self.accuracy([CONTEXT])

    @property
    def interval(self) -> tuple[float, float]:
        """The Wilson 95 % interval of the accuracy at the training length, all seeds together."""
        return wilson(*self.counts([CONTEXT]))

    @property
    def beyond(self) -> float:
        """The accuracy over the lengths from L + 1 to 3L."""
        return self.accuracy(range(CONTEXT + 1, LONGEST + 1))

    @property
    def shorter(self) -> float:
        """The accuracy over the lengths below L."""
        return self.accuracy(range(CONTEXT))


def percent(share: float) -> str:
    """A share for people: 0.4567 -> 45.7 %."""
    return "not tested" if share != share else f"{100 * share:.1f} %"


def complete(results: Iterable[Result]) -> bool:
    """Whether each setting has at least one finished run."""
    return all(results)
