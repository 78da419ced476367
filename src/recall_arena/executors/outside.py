"""What worker processes must know of other packages' tasks and mixers.

A run names its mixers, and another process knows those names only once somebody has told it.  It
is told by pickling their classes, which stand for a module and a name in it: so a class must be
where another process finds it.
"""

import pickle
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

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


@dataclass(frozen=True)
class Parcel:
    """Runs and what they need, for a process that does not share this one's import path."""

    places: tuple[str, ...]
    content: bytes

    def opened(self) -> tuple[Run, ...]:
        """The runs, whose tasks and mixers then are known in this process."""
        sys.path += [place for place in self.places if place not in sys.path]
        runs, outside = pickle.loads(self.content)
        outside.add()
        return tuple(runs)


def packed(*runs: Run) -> Parcel:
    """A parcel of runs."""
    places = tuple(str(Path(place).absolute()) for place in sys.path)
    return Parcel(places, pickle.dumps((runs, outside_of(*runs))))


def check_reachable(runs: Iterable[Run], *, elsewhere: bool = False) -> None:
    """Raises ValueError if a run's task or mixer has a class that no other process can import.

    Processes that this one starts also find what its script defines, but none elsewhere does.
    """
    for kind in {kind for run in runs for kind in run.kinds}:
        if "<locals>" in kind.__qualname__:
            place = "inside a function"
        elif kind.__module__ == "__main__" and "__file__" not in vars(sys.modules["__main__"]):
            place = "in a notebook or at a prompt"
        elif kind.__module__ == "__main__" and elsewhere:
            place = "in the script that is run"
        else:
            continue
        raise ValueError(
            f"{kind.__name__} is defined {place}, where other processes cannot import it: put it "
            "into a file, such as mine.py, and import it from there; or run with one job"
        )
