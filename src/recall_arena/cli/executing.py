"""Runs that a command has made: what is missing of them is executed, and shown at work."""

from collections.abc import Mapping
from contextlib import closing

from recall_arena.cli.command import Mistake
from recall_arena.cli.progress import follow
from recall_arena.executors import Failed, execute_all, sweep
from recall_arena.records import Store
from recall_arena.runs import Run


def finish(
    runs: list[Run],
    names: Mapping[str, str],
    store: Store,
    *,
    jobs: int | None,
    threads: int,
    keep_weights: bool,
    snapshot_seconds: float,
    executor: str,
    quiet: bool,
) -> list[Failed]:
    """Execute the runs that the store lacks; those that failed.

    Raises Mistake, before any of them, for a class that worker processes cannot import.
    """
    sweep(store)
    try:
        events = execute_all(
            runs,
            store,
            jobs=jobs,
            threads=threads,
            keep_weights=keep_weights,
            snapshot_seconds=snapshot_seconds,
            executor=executor,
        )
    except ValueError as error:
        raise Mistake(str(error)) from None
    with closing(events):
        return follow(events, names, quiet=quiet)
