"""The tasks.  To add one: a file with a frozen dataclass, and its line in TASKS.

Other packages add theirs by an entry point of the group recall_arena.tasks, or by
TASKS["name"] = Kind, in a module that is imported.
"""

from recall_arena.config import has_defaults
from recall_arena.registry import Registry, kind_of
from recall_arena.tasks.associative_recall import AssociativeRecall
from recall_arena.tasks.induction_heads import InductionHeads
from recall_arena.tasks.mqar import MQAR
from recall_arena.tasks.task import Batch, Task

_OWN: dict[str, type[Task]] = {
    "associative-recall": AssociativeRecall,
    "induction-heads": InductionHeads,
    "mqar": MQAR,
}


def _checked(name: str, value: object) -> type[Task]:
    kind = kind_of(value)
    if kind is not value or not issubclass(kind, Task) or not has_defaults(kind):
        raise ValueError(
            f"task {name!r} must be a class that inherits Task, is decorated with "
            "recall_arena.config.frozen, defines shortest_context and sample, and has a default "
            "for every field"
        )
    return kind


TASKS: Registry[type[Task]] = Registry("task", "recall_arena.tasks", _checked, _OWN)

__all__ = ["MQAR", "TASKS", "AssociativeRecall", "Batch", "InductionHeads", "Task"]
