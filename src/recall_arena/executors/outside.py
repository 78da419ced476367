"""What worker processes must know of other packages' tasks and mixers.

A run names its mixers, and another process knows those names only once somebody has told it.  It
is told by pickling their classes, which stand for a module and a name in it: so a class must be
where another process finds it.
"""

import sys
from collections.abc import Iterable
from dataclasses import dataclass

from recall_arena.mixers import MIXERS, MixerOptions
from recall_arena.runs import Run
from recall_arena.tasks import TASKS, Task


@dataclass(frozen=True)
class Outside:
    """Tasks and mixers that other packages added, by name."""

    tasks: dict[str, type[Task]]
    mixers: dict[str, MixerOptions]

    def add(self) -> None:
        """Have them known in this process."""
        for task, kind in self.tasks.items():
            TASKS[task] = kind
        for mixer, options in self.mixers.items():
            MIXERS[mixer] = options


def outside_of(*runs: Run) -> Outside:
    """What runs need beside this package."""
    kinds = {kind for run in runs for kind in run.kinds}
    return Outside(TASKS.added(kinds), MIXERS.added(kinds))


def check_reachable(runs: Iterable[Run]) -> None:
    """Raises ValueError if a run's task or mixer has a class that no other process can import."""
    for kind in {kind for run in runs for kind in run.kinds}:
        if "<locals>" in kind.__qualname__:
            place = "inside a function"
        elif kind.__module__ == "__main__" and "__file__" not in vars(sys.modules["__main__"]):
            place = "in a notebook or at a prompt"
        else:
            continue
        raise ValueError(
            f"{kind.__name__} is defined {place}, where other processes cannot import it: put it "
            "into a file, such as mine.py, and import it from there; or run with one job"
        )
