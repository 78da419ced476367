"""Runs: everything that decides an outcome, as a value; where task, model and loop meet."""

import math
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Annotated, Any

import torch
from pydantic import BeforeValidator

from recall_arena.checkpoints import weights_hash
from recall_arena.compiled import Compiled
from recall_arena.config import as_json, frozen, read
from recall_arena.evaluation import Contexts, Counts, accuracy, accuracy_by_context, held_out
from recall_arena.model import ModelSpec, SequenceModel
from recall_arena.provenance import provenance
from recall_arena.records import Cost, Outcome, Record, Tally, address_of, check_run
from recall_arena.seeds import generator
from recall_arena.tasks import TASKS, Task
from recall_arena.training import Schedule, train

REVISION = 6
"""Part of every address; raised when the code changes what the same run finds."""


@frozen
class Checks:
    """How a run is watched: validation accuracy at the training context, every so many steps.

    A run is solved when `running` checks in a row reach `solved`; it then stops.  A model that
    has not moved off chance is never stopped early: the plateau before induction can be long.

    Attributes:
        every: steps from one check to the next
        sequences: the validation sequences, the same at every check and for every model
        solved: the accuracy, in 0..1, that ends a run
        running: checks in a row that must reach it

    Raises:
        ValueError: for `every`, `sequences` or `running` below 1
    """

    every: int = 100
    sequences: int = 1000
    solved: float = 0.999
    running: int = 5

    def __post_init__(self) -> None:
        for name in ("every", "sequences", "running"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


@frozen
class Run:
    """A task, a model, how it is trained, watched and tested, a seed for weights and batches."""

    task: Annotated[Task, BeforeValidator(lambda value: _read_task(value))]
    model: ModelSpec
    schedule: Schedule
    checks: Checks = field(default_factory=Checks)
    contexts: Contexts = field(default_factory=Contexts)
    seed: int = 0

    def to_json(self) -> dict[str, Any]:
        """The run as JSON values; `from_json` brings it back.

        Raises ValueError if the task's class has no name.
        """
        (kind,) = TASKS.names_of(type(self.task))
        fields = {"revision": REVISION, **as_json(self)}
        fields["task"] = {"kind": kind, **fields["task"]}
        return fields

    @property
    def kinds(self) -> tuple[type, ...]:
        """The classes that the run's task and mixers are of."""
        return (type(self.task), *map(type, self.model.mixers))

    @property
    def address(self) -> str:
        """Sixteen hexadecimal digits: a hash of every field."""
        return address_of(self.to_json())


def from_json(values: dict[str, Any]) -> Run:
    """The run that `Run.to_json` wrote; ValueError if it is not one."""
    return read(Run, {name: value for name, value in values.items() if name != "revision"})


def run_of(record: Record) -> Run:
    """The run of a record.

    Raises ValueError where it is none that is known here, with the import that may help.
    """
    try:
        return from_json(record.run)
    except ValueError as error:
        modules = record.provenance.modules or []
        needed = f"; it was made with {', '.join(modules)}" if modules else ""
        hint = "".join(f" --import {module}" for module in modules if module != "__main__")
        raise ValueError(f"{error}{needed}{hint and ': try'}{hint}") from None


def _read_task(value: Any) -> Any:
    """A task from its JSON, told by its kind; what is no JSON object stays as it is."""
    if not isinstance(value, dict):
        return value
    fields = dict(value)
    kind = TASKS.find(str(fields.pop("kind", "")))
    return read(kind, fields)


@dataclass(frozen=True)
class Progress:
    """Where a run stands: `step` of at most `steps`, the last check's accuracy; then testing."""

    step: int
    steps: int
    accuracy: float
    tested: float = 0.0


def build(run: Run) -> SequenceModel:
    """The untrained model of a run; global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator("weights", run.seed).initial_seed())
        return SequenceModel(run.model)


def execute(run: Run) -> Generator[Progress, None, tuple[Record, SequenceModel]]:
    """Train and test a run, yielding its progress; the value returned is (record, trained model).

    Raises ValueError before the first step if the schedule's lengths or curriculum do not fit the
    task, or if no record could hold the run.  Close the generator to give the run up.  The outcome
    depends on the run and on torch's number of threads (the commands use one) alone, not on other
    runs beside it nor on their order.
    """
    check_run(run.to_json())
    model = build(run)
    compiled = Compiled(model)
    begun = time.perf_counter()
    watch = yield from _train(run, model, compiled)
    trained = time.perf_counter()
    lengths = run.contexts.lengths(run.task)
    tested: list[tuple[int, Counts]] = []
    for row in accuracy_by_context(compiled.logits, run.task, run.contexts):
        tested.append(row)
        yield Progress(watch.step, run.schedule.steps, watch.latest, len(tested) / len(lengths))
    cost = Cost(
        parameters=model.trained_parameters(),
        state_size=model.state_size(run.schedule.context),
        training_seconds=round(trained - begun, 3),
        evaluation_seconds=round(time.perf_counter() - trained, 3),
    )
    outcome = watch.outcome(tested)
    hashed = weights_hash(model.state_dict())
    made = provenance(run.kinds)
    return Record(run.address, run.to_json(), outcome, cost, made, hashed), model


def _train(
    run: Run, model: SequenceModel, compiled: Compiled
) -> Generator[Progress, None, "_Watch"]:
    watch, course = _Watch(run), run.schedule.course(run.task)
    loop = (compiled.loss_and_gradient, run.task, run.schedule, run.seed, course)
    for step, loss in enumerate(train(model.parameters(), *loop), start=1):
        watch.add(step, loss)
        if watch.diverged:
            break
        if step % run.checks.every == 0 or step == run.schedule.steps:
            watch.check(accuracy(compiled.logits, watch.batch))
            if course.waits:
                present = held_out(*course.at(step), run.checks.sequences, "validation")
                course.measured(accuracy(compiled.logits, present).accuracy)
        yield Progress(step, run.schedule.steps, watch.latest)
        if watch.solved:
            break
    return watch


class _Watch:
    """What has been seen of a run so far, and whether that ends it."""

    def __init__(self, run: Run) -> None:
        self.rule = run.checks
        self.batch = held_out(run.task, run.schedule.context, run.checks.sequences, "validation")
        self.step = 0
        self.diverged = False
        self.losses: list[float] = []
        self.checks: list[tuple[int, Counts]] = []
        self._since_check: list[float] = []

    def add(self, step: int, loss: float) -> None:
        self.step = step
        self.diverged = not math.isfinite(loss)
        self._since_check.append(loss)

    def check(self, counts: Counts) -> None:
        self.losses.append(sum(self._since_check) / len(self._since_check))
        self._since_check = []
        self.checks.append((self.step, counts))

    @property
    def latest(self) -> float:
        return self.checks[-1][1].accuracy if self.checks else 0.0

    @property
    def solved(self) -> bool:
        last = self.checks[-self.rule.running :]
        enough = len(last) == self.rule.running
        return enough and all(counts.accuracy >= self.rule.solved for _, counts in last)

    def outcome(self, tested: list[tuple[int, Counts]]) -> Outcome:
        ended = "diverged" if self.diverged else "solved" if self.solved else "budget"
        return Outcome(
            ended_by=ended,  # type: ignore[arg-type]
            steps=self.step,
            solved_at=self.checks[-self.rule.running][0] if self.solved else None,
            losses=self.losses,
            checks=tally(self.checks),
            contexts=tally(tested),
        )


def tally(rows: list[tuple[int, Counts]]) -> Tally:
    """Counts at steps or lengths, as a record keeps them."""
    return Tally(
        at=[at for at, _ in rows],
        total=[counts.total for _, counts in rows],
        correct=[counts.correct for _, counts in rows],
        total_by_query=[counts.total_by_query for _, counts in rows],
        correct_by_query=[counts.correct_by_query for _, counts in rows],
        total_repeats=[counts.total_repeats for _, counts in rows],
        correct_repeats=[counts.correct_repeats for _, counts in rows],
    )
