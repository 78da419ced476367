"""Where runs execute: in this process, or in local processes.  The outcomes are the same."""

import os
from collections.abc import Generator

from recall_arena.executors.events import Advanced, Event, Failed, Finished
from recall_arena.executors.here import execute_here
from recall_arena.executors.outside import check_reachable
from recall_arena.executors.processes import execute_in_processes
from recall_arena.records import Store, weights_path
from recall_arena.runs import Run

__all__ = ["Advanced", "Event", "Failed", "Finished", "cores", "execute_all", "missing"]


def cores() -> int:
    """How many processors this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on this platform
        return os.cpu_count() or 1


def missing(runs: list[Run], store: Store, *, keep_weights: bool = False) -> list[Run]:
    """Those of the runs that have no record yet, each once, in their order.

    With `keep_weights` also those whose weights are not there.
    """

    def is_there(run: Run) -> bool:
        weights = weights_path(store.folder, run.address)
        return run.address in store and (weights.exists() or not keep_weights)

    return list({run.address: run for run in runs if not is_there(run)}.values())


def execute_all(
    runs: list[Run], store: Store, *, jobs: int = 1, threads: int = 1, keep_weights: bool = False
) -> Generator[Event, None, None]:
    """Execute the runs that the store lacks, telling how they get on.

    Close the iterator to give up what is not finished; finished records stay.  Raises ValueError
    for less than one job or thread, or for runs that other processes would have to do and cannot.
    """
    for name, number in (("jobs", jobs), ("threads", threads)):
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")
    todo = missing(runs, store, keep_weights=keep_weights)
    if jobs == 1 or len(todo) <= 1:
        return execute_here(todo, store, threads, keep_weights)
    check_reachable(todo)
    return execute_in_processes(todo, store, jobs, threads, keep_weights)
