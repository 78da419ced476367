"""Runs as jobs of a SLURM cluster.

The jobs are the cluster's: they go on when the command that handed them in has ended, and whoever
calls it again follows them.  A job tells by files in the store, and SLURM is asked only whether
it is still there.
"""

import shutil
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from recall_arena.executors.events import Busy, Event, Failed, Finished
from recall_arena.executors.leases import lease
from recall_arena.executors.news import Reader
from recall_arena.executors.signals import deferred
from recall_arena.executors.slurm_jobs import FOLDER, Batch, Slurm, submit, submitted
from recall_arena.executors.work import Work
from recall_arena.records import Store
from recall_arena.runs import Run

SECONDS_BETWEEN_LOOKS = 1.0
SECONDS_BETWEEN_QUESTIONS = 20.0
"""A job that SLURM does not know twice in a row is over; between them its last files arrive."""
SECONDS_TO_SUBMIT = 600.0
SECONDS_TO_END = 10.0
"""So long a job may take to end whose runs have their records."""


def execute_on_slurm(runs: list[Run], work: Work, jobs: int | None) -> Generator[Event, None, None]:
    """Hand runs in as an array of jobs, at most `jobs` of them at work at once, and follow them.

    Runs that are handed in already are followed and not handed in again.  Closing the iterator
    leaves all jobs as they are.  Partition, time and whatever else `sbatch` can be told is told by
    its environment variables, such as SBATCH_PARTITION and SBATCH_TIMELIMIT.

    Raises ValueError where there is no `sbatch`.
    """
    if shutil.which("sbatch") is None:
        raise ValueError("the executor 'slurm' needs sbatch, which this machine does not have")
    return execute_on(Slurm(), runs, work, jobs)


def execute_on(
    cluster: Slurm, runs: list[Run], work: Work, jobs: int | None
) -> Generator[Event, None, None]:
    """The same on some cluster."""
    work = replace(work, store=Store(work.store.folder.absolute()))
    todo = {run.address: run for run in runs}
    if todo:
        with _alone(work), deferred():
            batches = _handed_in(cluster, todo, work, jobs)
        yield from _Followed(cluster, work, todo, batches).events()
        _clear_away(cluster, work)


def _handed_in(cluster: Slurm, todo: dict[str, Run], work: Work, jobs: int | None) -> list[Batch]:
    """The arrays that have these runs; those that none has are handed in.

    Raises OSError if SLURM does not answer.
    """
    present = cluster.present()
    if present is None:
        raise OSError("SLURM does not say which jobs there are: squeue fails")
    batches = []
    for batch in submitted(work.store.folder):
        jobs_there = {job: some for job, some in batch.addresses.items() if job in present}
        batches.append(Batch(batch.folder, jobs_there))
    taken = {a for batch in batches for some in batch.addresses.values() for a in some}
    fresh = [run for address, run in todo.items() if address not in taken]
    return [*batches, submit(cluster, fresh, work, jobs)] if fresh else batches


@contextmanager
def _alone(work: Work) -> Iterator[None]:
    """Nobody else hands runs of this store in meanwhile."""
    with lease(work.store.folder / FOLDER / "submitting.lock", SECONDS_TO_SUBMIT) as ours:
        if not ours:
            raise OSError(f"another command has been handing runs of {work.store.folder} in")
        yield


class _Followed:
    """Runs that jobs are at, and what is known of them."""

    def __init__(
        self, cluster: Slurm, work: Work, todo: dict[str, Run], batches: list[Batch]
    ) -> None:
        self._cluster, self._work, self._todo = cluster, work, dict(todo)
        self._reader = Reader()
        self._job: dict[str, tuple[str, Path]] = {
            address: (job, batch.folder)
            for batch in batches
            for job, addresses in batch.addresses.items()
            for address in addresses
        }
        self._missed: set[str] = set()
        self._next = time.monotonic() + SECONDS_BETWEEN_QUESTIONS

    def events(self) -> Iterator[Event]:
        """What the runs tell, until each has ended."""
        while True:
            over = self._over()  # before their files are read, so that none is missed
            written = {*self._work.store.written()}
            events = [
                event
                for address, run in self._todo.items()
                for event in self._of(run, address in written, over)
            ]
            for event in events:
                if isinstance(event, Finished | Failed):
                    del self._todo[event.address]
            yield from events or [Busy(next(iter(self._todo)))]
            if not self._todo:
                return
            time.sleep(SECONDS_BETWEEN_LOOKS)

    def _of(self, run: Run, written: bool, over: set[str]) -> Iterator[Event]:
        """What is new of a run, to its end if it has ended."""
        job, folder = self._job[run.address]
        if written and self._work.done(run):
            yield Finished(run.address)
            return
        for event in self._reader.read(folder, run.address):
            yield event
            if isinstance(event, Failed):
                return
        if job in over:
            lacking, log = "weights" if written else "a record", folder / f"{job}_0_log.out"
            yield Failed(run.address, f"its job {job} ended without {lacking}; its log is {log}")

    def _over(self) -> set[str]:
        """The jobs that are over, as far as it is time to ask."""
        if time.monotonic() < self._next:
            return set()
        present = self._cluster.present()
        self._next = time.monotonic() + SECONDS_BETWEEN_QUESTIONS
        if present is None:
            return set()
        missed = {self._job[address][0] for address in self._todo} - present
        over = missed & self._missed
        self._missed = missed
        return over


def _clear_away(cluster: Slurm, work: Work) -> None:
    """Remove the folders of arrays that are over and all of whose runs have their records."""
    finished = [
        batch
        for batch in submitted(work.store.folder)
        if all(a in work.store for addresses in batch.addresses.values() for a in addresses)
    ]
    deadline = time.monotonic() + SECONDS_TO_END
    while finished and time.monotonic() < deadline:
        present = cluster.present()
        if present is None:
            return
        for batch in [one for one in finished if not one.addresses.keys() & present]:
            shutil.rmtree(batch.folder, ignore_errors=True)
            finished.remove(batch)
        if finished:
            time.sleep(SECONDS_BETWEEN_LOOKS)
