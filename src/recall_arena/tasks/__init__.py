"""The tasks.  To add one: a file with a frozen dataclass, and its line in TASKS."""

from recall_arena.tasks.associative_recall import AssociativeRecall
from recall_arena.tasks.task import Batch, Task

TASKS: dict[str, type[Task]] = {"associative-recall": AssociativeRecall}

__all__ = ["TASKS", "AssociativeRecall", "Batch", "Task"]
