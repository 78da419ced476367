"""Runs one after another in this process."""

import time
from collections.abc import Generator, Iterable

import torch

from recall_arena.executors.events import Advanced, Event, Failed, Finished
from recall_arena.records import Store
from recall_arena.runs import Run, execute

SECONDS_BETWEEN_NEWS = 0.2
FAILURES = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError),
    *(OSError, RuntimeError, TypeError, ValueError),
)
"""What a broken run may raise; it is reported, and the other runs go on."""


def execute_one(run: Run, store: Store) -> Generator[Advanced, None, None]:
    """Execute a run and write its record; close the iterator to give it up."""
    working = execute(run)
    last_news = 0.0
    while True:
        try:
            progress = next(working)
        except StopIteration as end:
            record, _ = end.value
            store.write(record)
            return
        if time.monotonic() - last_news > SECONDS_BETWEEN_NEWS:
            last_news = time.monotonic()
            yield Advanced(run.address, progress)


def execute_here(runs: Iterable[Run], store: Store, threads: int) -> Generator[Event, None, None]:
    """Execute runs with `threads` threads, which are given back afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for run in runs:
            try:
                yield from execute_one(run, store)
            except FAILURES as error:
                yield Failed(run.address, f"{type(error).__name__}: {error}")
            else:
                yield Finished(run.address)
    finally:
        torch.set_num_threads(before)
