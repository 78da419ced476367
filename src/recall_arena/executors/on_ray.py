"""Runs as tasks of a Ray cluster: the one at RAY_ADDRESS, or else one of its own on this machine.

Where a worker or its node dies Ray begins the task again, and the run goes on from its snapshot in
the store, which all nodes must reach.  A task returns how its run ended, and sends its news by a
queue on the side: a streaming generator would have to send the same news again when it is retried.
"""

import os
import pickle
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from typing import Any

import ray
import torch
from ray.exceptions import RayError
from ray.util.queue import Empty, Full, Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from recall_arena.executors.events import Advanced, Busy, Event, Failed, Finished, Noted
from recall_arena.executors.here import execute_one
from recall_arena.executors.memory import keep_freed_memory
from recall_arena.executors.outside import Parcel, packed
from recall_arena.executors.signals import deferred
from recall_arena.executors.work import Work, cores
from recall_arena.records import Store
from recall_arena.runs import Run

ADDRESS = "RAY_ADDRESS"
RETRIES = 3
"""So often Ray begins a run's task again whose worker or node died; a run that takes its worker
with it each time thereby comes to an end."""
SECONDS_BETWEEN_LOOKS = 0.5
"""And between the news of a run: each look and each news is a call that the queue answers."""
SECONDS_TO_STOP = 30.0
SECONDS_TO_ANSWER = 10.0
MOST_NEWS = 10_000
"""News that nobody has looked at; further ones are dropped."""


def execute_on_ray(runs: list[Run], work: Work, jobs: int | None) -> Generator[Event, None, None]:
    """Execute runs as tasks with as many CPUs as a run has threads, at most `jobs` at once.

    Without `jobs` twice as many tasks are handed in as the cluster has room for, so that no node
    waits and a cluster that can grow is asked to.  Raises ValueError where nothing answers at
    RAY_ADDRESS.
    """
    if runs and not ray.is_initialized():
        _check_address(os.environ.get(ADDRESS, "auto"))
    return _executed(runs, work, jobs)


def _check_address(address: str) -> None:
    """Ray itself would wait for minutes, and then say it in many lines."""
    if address in ("auto", "local"):
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), SECONDS_TO_ANSWER).close()
    except (OSError, OverflowError, ValueError) as error:
        raise ValueError(
            f"{ADDRESS} must be HOST:PORT of a Ray cluster, got {address!r}: {error}"
        ) from None


def _executed(runs: list[Run], work: Work, jobs: int | None) -> Generator[Event, None, None]:
    if not runs:
        return
    store = Store(work.store.folder.absolute())  # workers have another current folder
    with _connected(work.threads, jobs), closing(_Tasks(replace(work, store=store), jobs)) as tasks:
        yield from tasks.execute(runs)


class _Tasks:
    """The tasks that are handed in, and what they tell.

    Signals wait while Ray is called, which makes a SystemError of what their handlers raise.
    """

    def __init__(self, work: Work, jobs: int | None) -> None:
        self._work, self._jobs = work, jobs
        self._working: dict[Any, Run] = {}
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        self._news = Queue(MOST_NEWS, {"num_cpus": 0, "scheduling_strategy": here})
        self._needs = {"CPU": work.threads, "GPU": work.gpus}
        needs = {"num_cpus": work.threads, "num_gpus": work.gpus}
        self._task = ray.remote(_work).options(**needs, max_retries=RETRIES, name="recall-arena")

    def execute(self, runs: Iterable[Run]) -> Iterator[Event]:
        """Hand runs in, and tell how they get on, until all have ended."""
        waiting = deque(runs)
        for name, number in self._needs.items() if waiting else ():
            largest = _most_on_a_node(name)
            if number > largest:  # Ray would wait without a word
                what = (
                    f"it waits for a node with {number} {name}s; the largest one has {largest:.0f}"
                )
                yield Noted(waiting[0].address, what)
        while waiting or self._working:
            with deferred():
                while waiting and len(self._working) < self._most():
                    self._hand_in(waiting.popleft())
                events = self._look(waiting)
            yield from events

    def close(self) -> None:
        """Cancel what is handed in; a task that is at work then keeps what it has come to."""
        with deferred(), suppress(RayError):
            for task in self._working:
                ray.cancel(task)
            ray.wait([*self._working], num_returns=len(self._working), timeout=SECONDS_TO_STOP)
            self._news.shutdown(force=True)

    def _most(self) -> int:
        if self._jobs is not None:
            return self._jobs
        there = ray.cluster_resources()
        room = min(there.get(name, 0) // number for name, number in self._needs.items() if number)
        return max(1, 2 * int(room))

    def _hand_in(self, run: Run) -> None:
        self._working[self._task.remote(packed(run), self._work, self._news)] = run

    def _look(self, waiting: deque[Run]) -> list[Event]:
        """What has happened; a run that is busy waits again."""
        ended, _ = ray.wait([*self._working], timeout=SECONDS_BETWEEN_LOOKS)
        events = self._told()
        for task in ended:
            run = self._working.pop(task)
            events.append(self._end(task, run))
            if isinstance(events[-1], Busy):
                waiting.append(run)
        return events or [Busy(run.address) for run in [*self._working.values()][:1]]

    def _told(self) -> list[Event]:
        """The news that have come in, of runs that have not ended."""
        try:
            number = self._news.qsize()
            news = self._news.get_nowait_batch(number) if number else []
        except (Empty, RayError):  # the queue's node is lost, and the runs go on without news
            return []
        present = {run.address for run in self._working.values()}
        events = [pickle.loads(told) for told in news]
        return [event for event in events if event.address in present]

    def _end(self, task: Any, run: Run) -> Event:
        """How a run ended; if Ray does not know, the store does."""
        try:
            event: Event = ray.get(task)
        except RayError as error:
            if self._work.done(run):
                return Finished(run.address)
            said = str(error).strip().splitlines() or [""]
            return Failed(run.address, f"{type(error).__name__}: {said[-1]}")
        return event


def _most_on_a_node(resource: str) -> float:
    nodes = [node for node in ray.nodes() if node["Alive"]]
    return max((node["Resources"].get(resource, 0.0) for node in nodes), default=0.0)


def _work(parcel: Parcel, work: Work, news: Queue) -> Event:
    """What a worker does: one run, to its last event."""
    (run,) = parcel.opened()
    keep_freed_memory()
    torch.set_num_threads(work.threads)
    last: Event = Busy(run.address)
    due = 0.0
    with closing(execute_one(run, work)) as events:
        for last in events:
            now = time.monotonic()
            if isinstance(last, Noted) or (isinstance(last, Advanced) and now >= due):
                due = now + SECONDS_BETWEEN_LOOKS
                with suppress(Full, RayError):
                    # As bytes: to hold an event the queue's process would import PyTorch.
                    news.put_nowait(pickle.dumps(last))
    return last


@contextmanager
def _connected(threads: int, jobs: int | None) -> Iterator[None]:
    """A connection to Ray: the caller's own, which stays, or a new one for the block."""
    if ray.is_initialized():
        yield
        return
    try:
        with deferred(), _our_own_sigterm():
            _connect(threads, jobs)
        yield
    finally:
        ray.shutdown()


def _connect(threads: int, jobs: int | None) -> None:
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if ADDRESS in os.environ:
        ray.init(os.environ[ADDRESS], **quiet)
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody was asked
    most = max(cores(), threads)
    cpus = most if jobs is None else min(most, jobs * threads)
    ray.init("local", num_cpus=cpus, include_dashboard=False, **quiet)


@contextmanager
def _our_own_sigterm() -> Iterator[None]:
    """Ray puts a handler of its own in the place of the caller's, which here comes back."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
