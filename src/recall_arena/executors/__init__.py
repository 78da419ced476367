"""Where runs execute: here, in local processes, on a cluster.  Records and bits are the same.

An executor is a function of runs, what is told about them and how many may be at work at once, to
the events of their execution; each run is `here.execute_one` in some process.  Its line in
`EXECUTORS` names it; nothing else has to know of it.
"""

import pkgutil
from collections.abc import Callable, Generator

from recall_arena.devices import check_device, device_named
from recall_arena.executors.events import Advanced, Busy, Event, Failed, Finished, Noted
from recall_arena.executors.outside import check_reachable
from recall_arena.executors.sweeping import sweep
from recall_arena.executors.work import SECONDS_BETWEEN_SNAPSHOTS, Work, cores
from recall_arena.names import unknown
from recall_arena.records import Store
from recall_arena.runs import Run

__all__ = [
    "EXECUTORS",
    "STAYING",
    "Advanced",
    "Busy",
    "Event",
    "Failed",
    "Finished",
    "Noted",
    "check_device_of",
    "cores",
    "execute_all",
    "missing",
    "sweep",
]

Executor = Callable[[list[Run], Work, int | None], Generator[Event, None, None]]

EXECUTORS = {
    "local": "processes:execute_locally",
    "ray": "on_ray:execute_on_ray",
    "slurm": "on_slurm:execute_on_slurm",
}
"""Each executor's name and its place in this package, which is imported when it is used."""

STAYING = {
    "slurm": "its jobs stay in SLURM's queue: the same command follows them, `scancel` ends them"
}
"""Executors whose runs go on when their events are closed, and what to know of that."""


def missing(runs: list[Run], store: Store, *, keep_weights: bool = False) -> list[Run]:
    """Those of the runs that have no record yet, each once, in their order.

    With `keep_weights` also those whose weights are not there.
    """
    return Work(store, keep_weights=keep_weights).missing(runs)


def check_device_of(executor: str, device: str) -> None:
    """Raises ValueError for a device that does not exist or, executing here, is not there."""
    if executor == "local":
        device_named(device)
    else:
        check_device(device)


def execute_all(
    runs: list[Run],
    store: Store,
    *,
    jobs: int | None = 1,
    threads: int = 1,
    keep_weights: bool = False,
    snapshot_seconds: float = SECONDS_BETWEEN_SNAPSHOTS,
    executor: str = "local",
    device: str = "cpu",
) -> Generator[Event, None, None]:
    """Execute the runs that the store lacks, telling how they get on.

    At most `jobs` are at work at once; None is as many as the executor has room for.  What an
    unfinished run has come to is written to the store every `snapshot_seconds`, and it goes on from
    there.  Close the iterator to give up what is not finished: finished records stay, and what
    the others have come to.  Any number of processes may do this with one store.

    Raises ValueError for less than one job or thread, an executor that does not exist or whose
    package is not installed, a device that does not exist or, if runs are executed on this machine,
    is not there, or for runs that other processes would have to do and cannot.
    """
    if jobs is not None and jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")
    if executor not in EXECUTORS:
        raise ValueError(unknown("executor", executor, EXECUTORS))
    work = Work(store, threads, keep_weights, snapshot_seconds, device)
    check_device_of(executor, device)
    todo = work.missing(runs)
    if executor != "local" or (jobs != 1 and len(todo) > 1):
        check_reachable(todo, elsewhere=executor != "local")
    try:
        execute: Executor = pkgutil.resolve_name(f"{__name__}.{EXECUTORS[executor]}")
    except ModuleNotFoundError as absent:
        raise ValueError(
            f"the executor {executor!r} needs {absent.name}: pip install 'recall-arena[{executor}]'"
        ) from None
    return execute(todo, work, jobs)
