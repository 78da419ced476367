"""Whether a record can be made again: its run is trained once more, and the outcomes are compared.

On the same platform, which is instruction set, kernels, torch, numpy, system and architecture, the
outcome and the weights are the same to the last bit.  Elsewhere sums round differently, and
training multiplies the difference as soon as a model begins to learn: of the same run on AVX2 and
on the baseline instruction set, mean losses were 1e-8 apart (relatively) up to there, and counts
up to 30 % apart some hundred steps later.  So what is compared elsewhere is what rounding leaves
alone: everything that training does not decide, exactly (parameters, state, which sequences were
asked), and the first check, its mean loss to within LOSS and its right answers to within COUNTS of
the sequences.
"""

import os
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Literal

from recall_arena.execution import Execution, Progress, with_threads
from recall_arena.provenance import provenance
from recall_arena.records import Provenance, Record, Tally
from recall_arena.runs import REVISION, run_of

LOSS = 1e-3
"""The largest relative difference of the first check's mean loss on another platform."""

COUNTS = 0.02
"""The largest difference of its right answers there, as a share of the answers asked for."""


@dataclass(frozen=True)
class Verdict:
    """How a record compares with its run made again; `reason` says where they differ or why not."""

    address: str
    kind: Literal["identical", "within rounding", "differs"]
    reason: str = ""


def obstacle(record: Record) -> str | None:
    """Why a record cannot be made again with this code, or None."""
    revision = record.run["revision"]
    if revision != REVISION:
        return f"it is of revision {revision}, and this code of revision {REVISION}"
    try:
        run = run_of(record)
    except ValueError as error:
        return f"its run is none that is known here ({error})"
    if run.address != record.address:
        return f"this code gives its run the address {run.address}"
    return None


def elsewhere(record: Record, made: Provenance | None = None) -> str | None:
    """What of the platform that made a record is not the same here, or None.

    Or not the same as where another was `made`.  Records that do not name the build of their
    kernels are of this one, as far as they tell.
    """
    theirs, ours = record.provenance, made or provenance()
    facts = {
        **{name: (theirs.versions.get(name), ours.versions[name]) for name in ("torch", "numpy")},
        "kernels": (theirs.kernels, ours.kernels),
        "machine": (theirs.machine, ours.machine),
        "kernels' build": (theirs.kernels_build or ours.kernels_build, ours.kernels_build),
    }
    for name, (there, here) in facts.items():
        if there != here:
            return f"{name} {there}, here {here}"
    return None


def verify(record: Record) -> Generator[Progress, None, Verdict]:
    """Make a record again, yielding progress; the value returned says how the two compare.

    Raises ValueError where there is an `obstacle`.
    """
    why = obstacle(record)
    if why is not None:
        raise ValueError(f"record {record.address} cannot be made again: {why}")
    threads = max(1, min(record.provenance.threads, os.cpu_count() or 1))
    with with_threads(threads):  # as many as the record had, where there are so many cores
        execution = Execution(run_of(record))
        yield from execution
    return compare(record, execution.record())


def compare(record: Record, again: Record) -> Verdict:
    """How two records of one run compare, of which the second was made here."""
    other = elsewhere(record)
    difference = _difference(record, again) if other is None else _beyond_rounding(record, again)
    if difference is not None:
        return Verdict(record.address, "differs", difference)
    if other is None:
        return Verdict(record.address, "identical")
    return Verdict(record.address, "within rounding", f"made with {other}")


def _difference(record: Record, again: Record) -> str | None:
    """The first of what must be equal on the same platform and is not."""
    theirs, ours = record.outcome, again.outcome
    for name in ("steps", "ended_by", "solved_at", "losses", "checks", "contexts"):
        if getattr(theirs, name) != getattr(ours, name):
            return f"{name} differ"
    if record.weights not in (None, again.weights):
        return "weights differ"
    return _undecided_by_training(record, again)


def _beyond_rounding(record: Record, again: Record) -> str | None:
    """The first of what rounding does not explain."""
    theirs, ours = record.outcome, again.outcome
    if not theirs.losses or not ours.losses:
        early = theirs.losses == ours.losses and theirs.ended_by == ours.ended_by
        return _undecided_by_training(record, again) if early else "one has no check"
    loss, expected = theirs.losses[0], ours.losses[0]
    if abs(loss - expected) > LOSS * abs(expected):
        return f"the first check's mean loss is {loss:.6g}, here {expected:.6g}"
    right, correct, total = theirs.checks.correct[0], ours.checks.correct[0], ours.checks.total[0]
    if abs(right - correct) > COUNTS * total:
        return f"the first check has {right} right answers, here {correct} of {total}"
    return _undecided_by_training(record, again)


def _undecided_by_training(record: Record, again: Record) -> str | None:
    for name in ("parameters", "state_size"):
        if getattr(record.cost, name) != getattr(again.cost, name):
            return f"{name} differ"
    checks = min(len(record.outcome.checks.at), len(again.outcome.checks.at))
    if _asked(record.outcome.checks)[:checks] != _asked(again.outcome.checks)[:checks]:
        return "the sequences of checks differ"
    if _asked(record.outcome.contexts) != _asked(again.outcome.contexts):
        return "the test sequences differ"
    return None


def _asked(tally: Tally) -> list[tuple[object, ...]]:
    """What was asked in each row, whatever was answered."""
    return rows_of(tally, tally.total, tally.total_by_query, tally.total_repeats)


def rows_of(tally: Tally, *columns: Sequence[object]) -> list[tuple[object, ...]]:
    """Each position with its row of these columns; None for one that a task does not have."""
    filled = (column or [None] * len(tally.at) for column in columns)
    return list(zip(tally.at, *filled, strict=True))
