"""How tests train a model, by its compiled form as runs do, and execute a whole run."""

from collections.abc import Iterator

from recall_arena.compiled import Compiled
from recall_arena.execution import Execution, Progress
from recall_arena.model import SequenceModel
from recall_arena.records import Record
from recall_arena.runs import Run
from recall_arena.tasks import Task
from recall_arena.training import Schedule, Training


def steps(model: SequenceModel, task: Task, schedule: Schedule, seed: int) -> Iterator[float]:
    return Training(model.parameters(), Compiled(model).loss_and_gradient, task, schedule, seed)


def finish(run: Run) -> tuple[list[Progress], Record, SequenceModel]:
    """All progress of a run, its record and its trained model."""
    execution = Execution(run)
    return list(execution), execution.record(), execution.model


def same(one: Record, other: Record) -> bool:
    """Whether two records tell of the same run, outcome and weights, to the last bit."""
    return (one.run, one.outcome, one.weights) == (other.run, other.outcome, other.weights)
