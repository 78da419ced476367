"""What holds for every record: its address is its run's hash, and its counts agree.

The run is looked at as JSON.  Whether its task and its mixers exist here is not asked: a record
of a part that is not installed is a record all the same.
"""

import hashlib
import itertools
import json
import math
import operator
import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from recall_arena.config import mistakes_in
from recall_arena.records.record import Outcome, Record, Tally

ADDRESS = re.compile("[0-9a-f]{16}")
BEYOND = 2**63
"""No number of a record reaches it, so that tables hold them all."""

Number = Annotated[int, Field(ge=-BEYOND, lt=BEYOND)]
Count = Annotated[int, Field(ge=0, lt=BEYOND)]
Positive = Annotated[int, Field(ge=1, lt=BEYOND)]


class _Described(BaseModel):
    """Fields that tables need; there may be more."""

    model_config = ConfigDict(strict=True, extra="ignore")


class _Task(_Described):
    kind: str
    vocabulary: Count = 0
    queries: Count = 0
    delay: Count = 0


class _Model(_Described):
    layers: list[str]
    width: Count
    positions: str


class _Curriculum(_Described):
    kind: str = ""


class _Schedule(_Described):
    rate: float
    steps: Count
    context: Count
    batch: Count
    warmup: Count
    decay: float
    clip: float
    decay_steps: Count = 0
    optimizer: str = ""
    weight_decay: float = 0.0
    shortest: Count | None = None
    curriculum: _Curriculum = _Curriculum()


class _Checks(_Described):
    every: Positive
    running: Positive
    sequences: Positive
    solved: float


class _Contexts(_Described):
    at: list[Positive] = []
    first: Count | None = None
    last: Count = 0
    stride: Positive = 1
    sequences: Positive = 1


class _Run(_Described):
    revision: Count
    task: _Task
    model: _Model
    schedule: _Schedule
    checks: _Checks
    contexts: _Contexts
    seed: Number


def address_of(run: dict[str, Any]) -> str:
    """Sixteen hexadecimal digits: a hash of every field of a run, which is given as JSON."""
    text = json.dumps(run, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def check(record: Record) -> None:
    """Raises ValueError, in one line, for a record that no run can have produced."""
    if record.address != address_of(record.run):
        raise ValueError(f"its address {record.address!r} is not the hash of its run")
    check_run(record.run)
    cost = record.cost
    for name in ("training_seconds", "evaluation_seconds", "parameters", "state_size"):
        if not 0 <= getattr(cost, name) < BEYOND:  # NaN too
            raise ValueError(f"cost.{name} is {getattr(cost, name)}")
    outcome = record.outcome
    _check_tally("checks", outcome.checks, record.run["checks"]["sequences"])
    _check_tally("contexts", outcome.contexts, record.run["contexts"].get("sequences", 1))
    _check_steps(outcome, record.run)
    _check_lengths(outcome.contexts.at, record.run["contexts"])


def check_run(run: dict[str, Any]) -> None:
    """Raises ValueError for a run that no record may have: tables could not hold it."""
    try:
        _Run.model_validate(run)
    except ValidationError as error:
        raise ValueError(f"its run is not described as here: {mistakes_in(error)}") from None


def _check_tally(name: str, tally: Tally, sequences: int) -> None:
    rows = len(tally.at)
    for column in ("total", "correct", "total_repeats", "correct_repeats"):
        counted = len(getattr(tally, column))
        if counted != rows and (counted or not column.endswith("repeats")):
            raise ValueError(f"{name}: {counted} rows of {column}, {rows} of at")
    if not all(map(operator.lt, tally.at, tally.at[1:])):
        raise ValueError(f"{name}.at does not rise")
    if any(not 0 < total < BEYOND or total % sequences for total in tally.total):
        raise ValueError(f"{name}.total is not of {sequences} sequences")
    apart = list(map(operator.sub, tally.correct, tally.correct_repeats))
    asked_apart = list(map(operator.sub, tally.total, tally.total_repeats))
    _check_within(f"{name}.correct", tally.correct, tally.total)
    _check_within(f"{name}.total_repeats", tally.total_repeats, tally.total)
    _check_within(f"{name}.correct_repeats", tally.correct_repeats, tally.total_repeats)
    _check_within(f"{name}.correct less correct_repeats", apart, asked_apart)
    _check_by_query(name, tally)


def _check_within(name: str, counts: Sequence[int], of: Sequence[int]) -> None:
    """Raises ValueError unless 0 <= count <= its whole; there may be no counts at all."""
    if counts and (len(counts) != len(of) or min(counts) < 0 or any(map(operator.gt, counts, of))):
        raise ValueError(f"{name} is not within its whole")


def _check_by_query(name: str, tally: Tally) -> None:
    total, correct = tally.total_by_query, tally.correct_by_query
    if not any(total) and not any(correct):
        return
    if not len(total) == len(correct) == len(tally.at):
        raise ValueError(f"{name}: counts by query have another number of rows than at")
    if list(map(len, total)) != list(map(len, correct)):
        raise ValueError(f"{name}: right answers by query are of other queries than all answers")
    flat = [list(itertools.chain.from_iterable(rows)) for rows in (correct, total)]
    _check_within(f"{name}.correct_by_query", *flat)
    if list(map(sum, total)) != tally.total or list(map(sum, correct)) != tally.correct:
        raise ValueError(f"{name}: counts by query do not add up to those of all queries")


def _check_steps(outcome: Outcome, run: dict[str, Any]) -> None:
    """The iterations are within the budget, each check stands where its rule puts it."""
    steps, budget, rule = outcome.steps, run["schedule"]["steps"], run["checks"]
    if not 0 < steps <= budget or (outcome.ended_by == "budget" and steps != budget):
        raise ValueError(f"{steps} steps, ended by {outcome.ended_by}, of a budget of {budget}")
    last = steps - 1 if outcome.ended_by == "diverged" else steps
    expected: Iterable[int] = range(rule["every"], last + 1, rule["every"])
    if last == budget and budget % rule["every"]:
        expected = [*expected, budget]
    if not _same(outcome.checks.at, expected):
        raise ValueError(f"checks are not at every {rule['every']} steps of {steps}")
    if len(outcome.losses) != len(outcome.checks.at) or not all(map(math.isfinite, outcome.losses)):
        raise ValueError("losses are not one finite number a check")
    solved = outcome.ended_by == "solved"
    running = outcome.checks.at[-rule["running"] :]
    if solved != (outcome.solved_at is not None) or (solved and outcome.solved_at != running[0]):
        raise ValueError(f"ended by {outcome.ended_by}, but solved at {outcome.solved_at}")
    if solved and min(outcome.checks.accuracy()[-rule["running"] :]) < rule["solved"]:
        raise ValueError(f"it was not solved: its last checks are not {rule['solved']}")


def _check_lengths(at: list[int], contexts: dict[str, Any]) -> None:
    """The lengths are those that a run lists, or asks for by first, last and stride."""
    if contexts.get("at"):
        if at != contexts["at"]:
            raise ValueError(f"contexts are not the lengths that its run asks for, {contexts}")
        return
    if not {"first", "last", "stride"} <= contexts.keys():
        return
    first = contexts["first"]
    if first is None:  # the task's shortest; only the task itself knows
        first = at[0] if at else contexts["last"] + 1
    if (at and at[0] < 1) or not _same(at, range(first, contexts["last"] + 1, contexts["stride"])):
        raise ValueError(f"contexts are not the lengths that its run asks for, {contexts}")


def _same(found: Sequence[int], expected: Iterable[int]) -> bool:
    """Whether both are the same numbers, without making a list of a range of any size."""
    if isinstance(expected, range):
        return len(found) == len(expected) and all(map(int.__eq__, found, expected))
    return list(found) == list(expected)
