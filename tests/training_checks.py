"""How tests train a model, by its compiled form as runs do, and execute a whole run."""

from collections.abc import Iterator

from recall_arena.compiled import Compiled
from recall_arena.model import SequenceModel
from recall_arena.records import Record
from recall_arena.runs import Progress, Run, execute
from recall_arena.tasks import Task
from recall_arena.training import Schedule, train


def steps(model: SequenceModel, task: Task, schedule: Schedule, seed: int) -> Iterator[float]:
    return train(model.parameters(), Compiled(model).loss_and_gradient, task, schedule, seed)


def finish(run: Run) -> tuple[list[Progress], Record, SequenceModel]:
    """All that executing a run yields, then what it returns."""
    working, progress = execute(run), []
    while True:
        try:
            progress.append(next(working))
        except StopIteration as end:
            return progress, *end.value
