"""The tasks.  To add one: a file with a frozen dataclass, and its line in TASKS."""

from recall_arena.tasks.associative_recall import AssociativeRecall
from recall_arena.tasks.induction_heads import InductionHeads
from recall_arena.tasks.mqar import MQAR
from recall_arena.tasks.task import Batch, Task

TASKS: dict[str, type[Task]] = {
    "associative-recall": AssociativeRecall,
    "induction-heads": InductionHeads,
    "mqar": MQAR,
}

__all__ = ["MQAR", "TASKS", "AssociativeRecall", "Batch", "InductionHeads", "Task"]
