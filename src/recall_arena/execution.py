"""A run at work: trained, watched, tested; where task, model and loop meet.

Between two items of its progress an execution is no more than plain tensors and numbers, its
`State`.  Another execution of the same run that is given them goes on from there, and ends with the
same weights, curve and record to the last bit.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from recall_arena.checkpoints import weights_hash
from recall_arena.compiled import Compiled
from recall_arena.curriculum import Course
from recall_arena.devices import brought, device_named
from recall_arena.evaluation import Counts, accuracy, accuracy_by_context, held_out
from recall_arena.memory import check_memory
from recall_arena.monitor import Monitor, rows_as_json, rows_from_json
from recall_arena.provenance import provenance
from recall_arena.records import Cost, Record, check_run
from recall_arena.runs import Run, build
from recall_arena.training import Schedule, Training

WEIGHTS, OPTIMIZER = "weights.", "optimizer."


@dataclass(frozen=True)
class Progress:
    """Where a run stands: `step` of at most `steps`, the last check's accuracy; then testing."""

    step: int
    steps: int
    accuracy: float
    tested: float = 0.0


@dataclass(frozen=True)
class State:
    """All that an execution has come to: tensors by name, and numbers as JSON values."""

    tensors: dict[str, Tensor]
    numbers: dict[str, Any]

    def copied(self) -> "State":
        """The same in tensors of its own, which nothing goes on changing."""
        return State({n: each.detach().clone() for n, each in self.tensors.items()}, self.numbers)


class Execution:
    """Iterate for the progress of a run; then its `record` is there, and the trained `model`.

    The outcome depends on the run, the device and torch's number of threads (the commands use one)
    alone, not on other runs beside it, nor on their order, nor on where it went on from a state.

    device  "cpu", with the compiled kernels; "cuda" or "mps", with the definitions; "auto" is the
            accelerator if there is one

    Raises ValueError before the first step if the schedule's lengths or curriculum do not fit the
    task, if no record could hold the run, if it cannot fit into the machine's memory, or if the
    device is not there.
    """

    def __init__(self, run: Run, device: str = "cpu") -> None:
        check_run(run.to_json())
        check_memory(run)
        self.run, self.device = run, device_named(device)
        self.model = build(run).to(self.device)
        compiled = Compiled(self.model)
        self._logits = brought(compiled.logits, self.device)
        schedule, course = self._followed(0)
        descent = brought(compiled.loss_and_gradient, self.device)
        loop = (descent, run.task, schedule, run.seed, course)
        self._training = Training(self.model.parameters(), *loop)
        self._monitor = Monitor(run)
        self._tested: list[tuple[int, Counts]] = []
        self._training_seconds = self._evaluation_seconds = 0.0
        self._within_a_step = False

    def __iter__(self) -> Iterator[Progress]:
        yield from self._train()
        yield from self._test()

    @property
    def training(self) -> bool:
        """Whether steps remain to be taken."""
        return not self._monitor.over and self._training.done < self.run.schedule.steps

    @property
    def whole(self) -> bool:
        """Whether there is a state: not while a step is under way, or has broken off."""
        return not self._within_a_step

    def state(self) -> State:
        """What has been come to; the tensors are the execution's own, which it goes on changing.

        Raises RuntimeError within a step.
        """
        if not self.whole:
            raise RuntimeError("a step is under way")
        weights = {WEIGHTS + name: each for name, each in self.model.state_dict().items()}
        optimizer = {OPTIMIZER + n: each for n, each in self._training.optimizer_state().items()}
        numbers = {
            "done": self._training.done,
            "stage": self._training.course.stage,
            "monitor": self._monitor.state(),
            "tested": rows_as_json(self._tested),
            "seconds": [self._training_seconds, self._evaluation_seconds],
        }
        return State(weights | optimizer, numbers)

    def restore(self, state: State) -> None:
        """Go on from a state of the same run, or from the last one of a run that it extends.

        Raises KeyError or RuntimeError for tensors that are not this model's.
        """
        tensors, numbers = state.tensors, state.numbers
        self.model.load_state_dict(_named(WEIGHTS, tensors))
        self._training.go_on(numbers["done"], _named(OPTIMIZER, tensors))
        self._follow(numbers["stage"])
        self._monitor.restore(numbers["monitor"])
        self._tested = rows_from_json(numbers["tested"])
        self._training_seconds, self._evaluation_seconds = numbers["seconds"]

    def record(self) -> Record:
        """What the run produced, once it has been iterated to its end."""
        cost = Cost(
            parameters=self.model.trained_parameters(),
            state_size=self.model.state_size(self.run.schedule.context),
            training_seconds=round(self._training_seconds, 3),
            evaluation_seconds=round(self._evaluation_seconds, 3),
        )
        outcome = self._monitor.outcome(self._tested)
        hashed = weights_hash(self.model.state_dict())
        made = provenance(self.run.kinds, self.device)
        return Record(self.run.address, self.run.to_json(), outcome, cost, made, hashed)

    def _followed(self, step: int) -> tuple[Schedule, Course]:
        """The schedule and the course of a step: an origin's for the steps that it had."""
        run = self.run
        while run.extends is not None and step < run.extends.schedule.steps:
            run = run.extends
        return run.schedule, run.schedule.course(run.task)

    def _follow(self, stage: int) -> None:
        """Go over to the schedule of the next step; the curriculum is at this stage."""
        schedule, course = self._followed(self._training.done)
        course.stage = stage
        self._training.follow(schedule, course)

    def _train(self) -> Iterator[Progress]:
        while self.training:
            begun = time.perf_counter()
            self._within_a_step = True
            self._step()
            self._within_a_step = False
            self._training_seconds += time.perf_counter() - begun
            yield self._progress()

    def _step(self) -> None:
        run, monitor, training = self.run, self._monitor, self._training
        if training.done >= training.schedule.steps:
            self._follow(training.course.stage)
        loss = next(training)
        step, course = training.done, training.course
        monitor.add(step, loss)
        if monitor.diverged or not (step % run.checks.every == 0 or step == run.schedule.steps):
            return
        monitor.check(accuracy(self._logits, monitor.batch))
        if course.waits:
            present = held_out(*course.at(step), run.checks.sequences, "validation")
            course.measured(accuracy(self._logits, present).accuracy)

    def _test(self) -> Iterator[Progress]:
        run = self.run
        lengths = len(run.contexts.lengths(run.task))
        tests = (self._logits, run.task, run.contexts, len(self._tested))
        begun = time.perf_counter()
        for row in accuracy_by_context(*tests):
            self._tested.append(row)
            self._evaluation_seconds += time.perf_counter() - begun
            yield self._progress(len(self._tested) / lengths)
            begun = time.perf_counter()

    def _progress(self, tested: float = 0.0) -> Progress:
        monitor = self._monitor
        return Progress(monitor.step, self.run.schedule.steps, monitor.latest, tested)


@contextmanager
def with_threads(number: int) -> Iterator[None]:
    """Have torch use so many threads within the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _named(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those tensors whose names begin so, by the rest of their names."""
    return {n.removeprefix(prefix): each for n, each in tensors.items() if n.startswith(prefix)}
