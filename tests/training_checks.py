"""How tests train a model: by its compiled form, as runs do."""

from collections.abc import Iterator

from recall_arena.compiled import Compiled
from recall_arena.model import SequenceModel
from recall_arena.tasks import Task
from recall_arena.training import Schedule, train


def steps(model: SequenceModel, task: Task, schedule: Schedule, seed: int) -> Iterator[float]:
    return train(model.parameters(), Compiled(model).loss_and_gradient, task, schedule, seed)
