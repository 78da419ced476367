"""Runs one after another in this process."""

import time
from collections.abc import Generator, Iterable

import torch

from recall_arena.checkpoints import save_weights
from recall_arena.executors.events import Advanced, Event, Failed, Finished
from recall_arena.records import DamagedRecord, Store, weights_path
from recall_arena.runs import Run, execute

SECONDS_BETWEEN_NEWS = 0.2
FAILURES = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError),
    *(DamagedRecord, OSError, RuntimeError, TypeError, ValueError),
)
"""What a broken run may raise; it is reported, and the other runs go on."""


def execute_one(run: Run, store: Store, keep_weights: bool) -> Generator[Advanced, None, None]:
    """Execute a run and write its record, after its weights where those are wanted.

    Close the iterator to give the run up.
    """
    working = execute(run)
    last_news = 0.0
    while True:
        try:
            progress = next(working)
        except StopIteration as end:
            record, model = end.value
            if keep_weights:
                save_weights(model, weights_path(store.folder, run.address))
            store.write(record)
            return
        if time.monotonic() - last_news > SECONDS_BETWEEN_NEWS:
            last_news = time.monotonic()
            yield Advanced(run.address, progress)


def execute_here(
    runs: Iterable[Run], store: Store, threads: int, keep_weights: bool
) -> Generator[Event, None, None]:
    """Execute runs with `threads` threads, which are given back afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for run in runs:
            try:
                yield from execute_one(run, store, keep_weights)
            except FAILURES as error:
                yield Failed(run.address, f"{type(error).__name__}: {error}")
            else:
                yield Finished(run.address)
    finally:
        torch.set_num_threads(before)
