"""Runs one after another in this process; what every other executor does in its own."""

import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import nullcontext

from recall_arena.checkpoints import save_weights
from recall_arena.execution import Execution, Progress, with_threads
from recall_arena.executors.events import Advanced, Busy, Event, Failed, Finished, Noted
from recall_arena.executors.leases import lease
from recall_arena.executors.signals import deferred
from recall_arena.executors.work import Work
from recall_arena.records import DamagedRecord, end_path, lease_path, snapshot_path, weights_path
from recall_arena.runs import Run
from recall_arena.snapshots import Unusable, restore_snapshot, save_snapshot

SECONDS_BETWEEN_NEWS = 0.2
FAILURES = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError),
    *(DamagedRecord, OSError, RuntimeError, TypeError, ValueError),
)
"""What a broken run may raise; it is reported, and the other runs go on."""


def execute_here(runs: Iterable[Run], work: Work) -> Generator[Event, None, None]:
    """Execute runs with `work.threads` threads; PyTorch's number is restored afterwards.

    A run that somebody else is at comes up again when the others are done.
    """
    waiting = deque(runs)
    with with_threads(work.threads):
        while waiting:
            run = waiting.popleft()
            for event in execute_one(run, work):
                if isinstance(event, Busy):
                    waiting.append(run)
                yield event


def execute_one(run: Run, work: Work) -> Generator[Event, None, None]:
    """Execute a run, from where it was broken off, and write its record; the last event says
    how it ended.

    Close the iterator to give the run up; what it has come to is kept.
    """
    folder = work.store.folder
    with lease(lease_path(folder, run.address)) as ours:
        if not ours:
            yield Busy(run.address)
            return
        try:
            if not work.done(run):
                yield from _executed(run, work)
        except FAILURES as error:
            yield Failed(run.address, f"{type(error).__name__}: {error}")
            return
        snapshot_path(folder, run.address).unlink(missing_ok=True)
        lease_path(folder, run.address).unlink(missing_ok=True)
    yield Finished(run.address)


def _executed(run: Run, work: Work) -> Generator[Event, None, None]:
    execution = Execution(run, work.device)
    yield from _gone_on(execution, work)
    keeper = _Keeper(execution, work)
    try:
        for progress in _paced(execution):
            yield from keeper.tick()
            yield Advanced(run.address, progress)
        if work.keep_weights:
            save_weights(execution.model, weights_path(work.store.folder, run.address))
            save_snapshot(execution, end_path(work.store.folder, run.address))
        work.store.write(execution.record())
    except BaseException:  # a signal, a closed iterator, a full disk
        keeper.save_what_there_is()
        raise


def _gone_on(execution: Execution, work: Work) -> Iterator[Noted]:
    """Go on from the run's own snapshot, or else from the end of a run that it extends."""
    run, folder = execution.run, work.store.folder
    places = [(snapshot_path(folder, run.address), run)]
    if run.extends is not None:
        places.append((end_path(folder, run.extends.address), run.extends))
    for path, whose in places:
        try:
            restore_snapshot(execution, path, whose)
            return
        except FileNotFoundError:
            continue
        except Unusable as reason:
            yield Noted(run.address, f"{reason}; it is trained from its beginning")


def _paced(execution: Execution) -> Iterator[Progress]:
    """The progress now and then.  A signal waits until a training step is over, for half a step
    is nothing to go on from; a test may be broken off at once."""
    working = iter(execution)
    while True:
        with deferred() if execution.training else nullcontext():
            until = time.monotonic() + SECONDS_BETWEEN_NEWS
            while (news := next(working, None)) is not None:
                if time.monotonic() >= until or not execution.training:
                    break
        if news is None:
            return
        yield news


class _Keeper:
    """Writes what an execution has come to, now and then."""

    def __init__(self, execution: Execution, work: Work) -> None:
        self._execution, self._every = execution, work.snapshot_seconds
        self._path = snapshot_path(work.store.folder, execution.run.address)
        self._last = time.monotonic()
        self._told = False

    def tick(self) -> Iterator[Noted]:
        """Write it if it is time; a disk that is full is told of once, and ends nothing."""
        if time.monotonic() - self._last < self._every:
            return
        try:
            save_snapshot(self._execution, self._path)
        except OSError as error:
            if not self._told:
                self._told = True
                text = f"what it has come to cannot be kept ({error.strerror}); it goes on"
                yield Noted(self._execution.run.address, text)
        self._last = time.monotonic()

    def save_what_there_is(self) -> None:
        """Write it at the end, unless a step broke off half-way or nothing can be written."""
        try:
            if self._execution.whole:
                save_snapshot(self._execution, self._path)
        except OSError:
            return  # the last snapshot stands
