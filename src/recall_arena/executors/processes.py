"""Runs in local processes, each with threads of its own.

The workers leave Ctrl-C to the parent.  When the parent gives up, it sets an event that every
worker looks at after each step; when the parent is gone, they see that too.  A worker that is
killed takes down its pool: the runs that were on their way are reported as failed, and the
rest goes to a new pool.
"""

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Event as Flag

import torch

from recall_arena.executors.events import Advanced, Event, Failed, Finished
from recall_arena.executors.here import execute_one
from recall_arena.records import Store
from recall_arena.runs import Run

_SPAWN = multiprocessing.get_context("spawn")


class _Worker:
    """What a worker process was given when it started."""

    news: "SimpleQueue[Advanced]"
    stop: Flag
    parent: int


def _start_worker(threads: int, news: "SimpleQueue[Advanced]", stop: Flag) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(threads)
    _Worker.news, _Worker.stop, _Worker.parent = news, stop, os.getppid()


def _work(run: Run, store: Store) -> None:
    for advanced in execute_one(run, store):
        if _Worker.stop.is_set() or os.getppid() != _Worker.parent:
            return
        _Worker.news.put(advanced)


def execute_in_processes(
    runs: list[Run], store: Store, jobs: int, threads: int
) -> Generator[Event, None, None]:
    """Execute runs in `jobs` processes of `threads` threads each, telling news as they come."""
    waiting = deque(runs)
    while waiting:
        yield from _with_one_pool(waiting, store, min(jobs, len(waiting)), threads)


def _with_one_pool(
    waiting: deque[Run], store: Store, jobs: int, threads: int
) -> Generator[Event, None, None]:
    """Work through `waiting`, taking runs off its left, until it is empty or the pool breaks."""
    news: SimpleQueue[Advanced] = _SPAWN.SimpleQueue()
    stop = _SPAWN.Event()
    pool = ProcessPoolExecutor(jobs, _SPAWN, _start_worker, (threads, news, stop))
    working: dict[Future[None], Run] = {}
    broken = False
    try:
        while (waiting and not broken) or working:
            while waiting and len(working) < jobs and not broken:
                run = waiting.popleft()
                working[pool.submit(_work, run, store)] = run
            done, _ = wait(working, timeout=0.1, return_when="FIRST_COMPLETED")
            while not news.empty():
                yield news.get()
            for future in done:
                error = future.exception()
                broken = broken or isinstance(error, BrokenProcessPool)
                yield _ending(working.pop(future), error)
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def _ending(run: Run, error: BaseException | None) -> Event:
    if error is None:
        return Finished(run.address)
    if isinstance(error, BrokenProcessPool):
        return Failed(run.address, "its process, or one beside it, was killed (out of memory?)")
    return Failed(run.address, f"{type(error).__name__}: {error}")
