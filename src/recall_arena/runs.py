"""Runs: everything that decides an outcome, as a value."""

from dataclasses import field, replace
from typing import Annotated, Any

import torch
from pydantic import BeforeValidator

from recall_arena.config import added, as_json, frozen, read
from recall_arena.evaluation import Contexts
from recall_arena.model import ModelSpec, SequenceModel
from recall_arena.records import Record, address_of
from recall_arena.seeds import generator
from recall_arena.tasks import TASKS, Task
from recall_arena.training import Schedule

REVISION = 6
"""Part of every address; raised when the code changes what the same run finds."""

FREE = ("steps", "decay", "decay_steps")
"""What may differ in the schedules of a run and of one that goes further."""


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
        ValueError: for `every`, `sequences` or `running` below 1, `solved` not in (0, 1]
    """

    every: int = 100
    sequences: int = 1000
    solved: float = 0.999
    running: int = 5

    def __post_init__(self) -> None:
        for name in ("every", "sequences", "running"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.solved <= 1:
            raise ValueError(f"solved must be above 0 and at most 1, got {self.solved}")


@frozen
class Run:
    """A task, a model, how it is trained, watched and tested, a seed for weights and batches.

    A run may go on from the end of another one, `extends`, whose steps then are its first ones:
    with a longer schedule, with other lengths to be tested at, or both.

    Raises:
        ValueError: for an extension that changes anything else, or has fewer steps
    """

    task: Annotated[Task, BeforeValidator(lambda value: _read_task(value))]
    model: ModelSpec
    schedule: Schedule
    checks: Checks = field(default_factory=Checks)
    contexts: Contexts = field(default_factory=Contexts)
    seed: int = 0
    extends: "Run | None" = added(default=None)

    def __post_init__(self) -> None:
        if self.extends is not None:
            self._check_extension(self.extends)

    def _check_extension(self, origin: "Run") -> None:
        steps, first, every = self.schedule.steps, origin.schedule.steps, self.checks.every
        if steps < first:
            raise ValueError(f"steps must be at least {first}, as the origin has, got {steps}")
        if steps > first and first % every:
            raise ValueError(
                f"an origin of {first} steps, checked every {every}, has a check at its end that a "
                "longer run does not have: only other lengths can be tested"
            )
        free = {name: getattr(self.schedule, name) for name in FREE}
        schedule = replace(origin.schedule, **free)
        if replace(origin, schedule=schedule, contexts=self.contexts, extends=None) != replace(
            self, extends=None
        ):
            raise ValueError("an extension changes steps, decay and test lengths alone")

    def to_json(self) -> dict[str, Any]:
        """The run as JSON values; `from_json` brings it back.

        Raises ValueError if the task's class has no name.
        """
        (kind,) = TASKS.names_of(type(self.task))
        fields = {"revision": REVISION, **as_json(self)}
        fields["task"] = {"kind": kind, **fields["task"]}
        return fields if self.extends is None else fields | {"extends": self.extends.to_json()}

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
    return read(Run, _without_revision(values))


def _without_revision(values: dict[str, Any]) -> dict[str, Any]:
    """The fields of a run, and of those that it extends."""
    fields = {name: value for name, value in values.items() if name != "revision"}
    origin = fields.get("extends")
    return fields | {"extends": _without_revision(origin)} if isinstance(origin, dict) else fields


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


def build(run: Run) -> SequenceModel:
    """The untrained model of a run; global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator("weights", run.seed).initial_seed())
        return SequenceModel(run.model)
