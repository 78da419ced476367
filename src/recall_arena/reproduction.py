"""Runs held against published ones of the same seed that went further.

Batches and weights depend on the seed and the iteration alone, and the rate is constant until it
falls at the end.  So a shorter run is the beginning of a longer one, to the last bit on the same
platform (see `verification`), and where both were solved by then, all of it.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

from recall_arena.records import Record, Tally
from recall_arena.runs import FREE, Run, run_of
from recall_arena.verification import elsewhere, rows_of


@dataclass(frozen=True)
class Reproduction:
    """A record beside the published one of the same course.

    checks      how many both have
    iterations  up to the last of them
    same        of the checks, how many are equal from the first on, in mean loss and every count
    to_the_end  whether both ended alike, with equal tests where both were tested
    other       what of the platform differs, or None
    """

    record: Record
    published: Record
    checks: int
    same: int
    to_the_end: bool
    other: str | None

    @property
    def iterations(self) -> int:
        """Up to the last check that both have."""
        return self.record.outcome.checks.at[self.checks - 1] if self.checks else 0

    @property
    def identical(self) -> bool:
        """Whether nothing that both have differs."""
        ended = self.record.outcome.steps == self.published.outcome.steps
        return self.same == self.checks and (self.to_the_end or not ended)

    def apart(self) -> float:
        """How far their validation accuracies are apart at that iteration."""
        here, there = self.accuracies
        return 0.0 if here is None or there is None else abs(here - there)

    @property
    def accuracies(self) -> tuple[float | None, float | None]:
        """Both validation accuracies at that iteration, None without a check in common."""
        here, there = (own.outcome.checks.accuracy() for own in (self.record, self.published))
        last = self.checks - 1
        return (here[last], there[last]) if self.checks else (None, None)


def held_against(records: Iterable[Record], published: Iterable[Record]) -> Iterator[Reproduction]:
    """Each record that begins as a published one does, beside the one that went furthest."""
    further: dict[str, Record] = {}
    for record in sorted(published, key=lambda one: one.outcome.steps):
        further[_course(record)] = record
    for record in records:
        whole = further.get(_course(record))
        if whole is not None and _on_the_way(run_of(record), run_of(whole), record.outcome.steps):
            yield _compared(record, whole)


def _course(record: Record) -> str:
    """What both must have in common, whatever their budgets and test lengths."""
    schedule = {k: v for k, v in record.run["schedule"].items() if k not in FREE}
    fields = {k: v for k, v in record.run.items() if k not in ("contexts", "extends")}
    return json.dumps(fields | {"schedule": schedule}, sort_keys=True)


def _on_the_way(run: Run, whole: Run, steps: int) -> bool:
    """Whether they have the same rate at each of so many iterations."""
    ours, theirs = run.schedule, whole.schedule
    steps = min(steps, theirs.steps)
    return all(ours.rate_at(step) == theirs.rate_at(step) for step in range(steps))


def _compared(record: Record, whole: Record) -> Reproduction:
    one, other = record.outcome, whole.outcome
    checks = min(len(one.checks.at), len(other.checks.at))
    rows = zip(_rows(one.checks, one.losses), _rows(other.checks, other.losses), strict=False)
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], rows))
    tests, theirs = (dict(zip(o.contexts.at, _rows(o.contexts), strict=True)) for o in (one, other))
    alike = (one.steps, one.ended_by, one.solved_at) == (
        other.steps,
        other.ended_by,
        other.solved_at,
    )
    tested = tests.keys() & theirs.keys()
    return Reproduction(
        record,
        whole,
        checks,
        same,
        alike and all(tests[at] == theirs[at] for at in tested),
        elsewhere(whole, record.provenance),
    )


def _rows(tally: Tally, *more: Sequence[object]) -> list[tuple[object, ...]]:
    """Every count of each position, and what else is known of it."""
    asked = (tally.total, tally.total_by_query, tally.total_repeats)
    correct = (tally.correct, tally.correct_by_query, tally.correct_repeats)
    return rows_of(tally, *asked, *correct, *more)
