"""What a model is trained on, step by step: easy lengths or distances first, then all of them.

A curriculum caps the training length, or one number of the task such as its delay.  The cap
rises with the steps, or with each accuracy that reaches the gate.  A gate makes nothing depend on
chance or time: the cap moves only where a run checks accuracy, so a step's batch is a function of
the seed, the step and the accuracies that were measured before it.
"""

from dataclasses import fields, replace
from typing import Literal

import torch

from recall_arena.config import frozen
from recall_arena.names import unknown
from recall_arena.seeds import generator
from recall_arena.tasks.task import Batch, Task


@frozen
class Curriculum:
    """How the training length, or a number of the task, grows to its final value.

    Attributes:
        kind: "none"; "linear" in the steps; "gated": a stage further at each check of the run
            whose accuracy, on validation sequences of the present stage, reaches the gate
        over: what grows: "context", or a number of the task, such as "delay", "distance" or "pairs"
        begin: its first value; None is the smallest that there is, such as the shortest context
        until: linear: the share of the budget after which the final value is reached
        gate: gated: the accuracy, in 0..1, that ends a stage
        stages: gated: equal steps from the first value to the final one

    Raises:
        ValueError: for a share or a gate that is not above 0 and at most 1, stages below 1
    """

    kind: Literal["none", "linear", "gated"] = "none"
    over: str = "context"
    begin: int | None = None
    until: float = 0.8
    gate: float = 0.9
    stages: int = 8

    def __post_init__(self) -> None:
        for name in ("until", "gate"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(
                    f"curriculum.{name} must be above 0 and at most 1, got {getattr(self, name)}"
                )
        if self.stages < 1:
            raise ValueError(f"curriculum.stages must be at least 1, got {self.stages}")


class Course:
    """The task and the context of each step of a run; a gated one is moved on by `measured`.

    Raises ValueError where the curriculum, the lengths and the task do not fit together.
    """

    def __init__(
        self, task: Task, context: int, shortest: int | None, steps: int, curriculum: Curriculum
    ) -> None:
        self.curriculum = curriculum
        self.stage = 0
        self._task, self._context, self._shortest, self._steps = task, context, shortest, steps
        self._begin, self._end = self._ends()
        for value in (self._begin, self._end):
            reached, longest = self._with(value)
            reached.check_context(longest if shortest is None else min(shortest, longest))

    def _ends(self) -> tuple[int, int]:
        curriculum, over = self.curriculum, self.curriculum.over
        if over == "context":
            smallest, end = self._shortest or self._task.shortest_context, self._context
        else:
            spans = {f.name: self._task.growing(f.name, self._context) for f in fields(self._task)}
            if (span := spans.get(over)) is None:
                numbers = (name for name, known in spans.items() if known)
                raise ValueError(unknown("curriculum.over", over, ("context", *numbers)))
            smallest, end = span
        begin = smallest if curriculum.begin is None else curriculum.begin
        if curriculum.kind == "none":
            return end, end
        if not smallest <= begin <= end:
            raise ValueError(f"curriculum.begin must be in {smallest}..{end}, got {begin}")
        return begin, end

    def _with(self, value: int) -> tuple[Task, int]:
        if self.curriculum.over == "context":
            return self._task, value
        return replace(self._task, **{self.curriculum.over: value}), self._context

    @property
    def waits(self) -> bool:
        """Whether the next stage waits for an accuracy."""
        return self.curriculum.kind == "gated" and self.stage < self.curriculum.stages

    def measured(self, accuracy: float) -> None:
        """Go a stage further if this accuracy, on sequences of the present one, is enough."""
        if self.waits and accuracy >= self.curriculum.gate:
            self.stage += 1

    def at(self, step: int) -> tuple[Task, int]:
        """The task of step 0, 1, ..., and its longest context."""
        span = self._end - self._begin
        if self.curriculum.kind == "gated":
            return self._with(self._begin + span * self.stage // self.curriculum.stages)
        passed = step / max(self.curriculum.until * self._steps, 1)
        return self._with(self._begin + int(span * min(passed, 1.0)))

    def sample(self, step: int, batch: int, seed: int) -> Batch:
        """The batch of a step; the lengths of a range are equally likely, one for the batch."""
        task, context = self.at(step)
        if self._shortest is not None:
            rng = generator("length", seed, step)
            context = int(torch.randint(self._shortest, context + 1, (), generator=rng))
        return task.sample_to_train(batch, context, generator("train", seed, step))
