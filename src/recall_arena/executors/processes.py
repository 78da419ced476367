"""Runs in local processes, one process a run, each with threads of its own.

A run that crashes or is killed takes nothing down with it.  The processes come from a server
that has imported torch already, so that a new one costs milliseconds.  Server and processes
leave Ctrl-C to the parent: when it gives up it terminates them, and when it dies the system closes
its end of their pipes; either way they keep what their runs have come to, and stop.
"""

import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Generator
from contextlib import closing
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType

import torch

from recall_arena.executors.events import Advanced, Busy, Event, Failed, Noted
from recall_arena.executors.here import execute_here, execute_one
from recall_arena.executors.memory import keep_freed_memory
from recall_arena.executors.outside import Outside, outside_of
from recall_arena.executors.signals import deferred, interrupts_blocked
from recall_arena.executors.work import Work, cores
from recall_arena.runs import Run

SECONDS_TO_STOP = 30.0
FILES_OF_A_START = 8
"""So many files are open for a moment, here or at the server, while a process is started."""
_SERVED = "forkserver" in multiprocessing.get_all_start_methods()
_CONTEXT = (
    multiprocessing.get_context("forkserver") if _SERVED else multiprocessing.get_context("spawn")
)


def _work(pipe: Connection, outside: Outside, run: Run, work: Work) -> None:
    outside.add()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _give_up)
    keep_freed_memory()
    torch.set_num_threads(work.threads)
    with closing(execute_one(run, work)) as events:
        for event in events:
            if pipe.poll():  # the parent never sends, so this is the end of its pipe
                return
            try:
                pipe.send(event)
            except ConnectionError:
                return


def _give_up(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def execute_locally(runs: list[Run], work: Work, jobs: int | None) -> Generator[Event, None, None]:
    """Execute runs in this process, one after another, or in up to `jobs` processes."""
    if jobs is None:
        jobs = max(1, cores() // work.threads)
    return (
        execute_here(runs, work) if jobs == 1 or len(runs) <= 1 else _in_processes(runs, work, jobs)
    )


def _in_processes(runs: list[Run], work: Work, jobs: int) -> Generator[Event, None, None]:
    waiting = deque(runs)
    working: dict[Connection, tuple[BaseProcess, Run]] = {}
    try:
        while waiting or working:
            while waiting and len(working) < jobs:
                if working and not _files_can_be_opened():
                    break  # as many as this process may have
                run = waiting.popleft()
                with deferred():
                    pipe, process = _start(run, work)
                    working[pipe] = process, run
            for ready in wait(list(working)):
                assert isinstance(ready, Connection)
                process, run = working[ready]
                event = _receive(ready, process, run)
                if not isinstance(event, Advanced | Noted):
                    del working[ready]
                    _stop(ready, process)
                if isinstance(event, Busy):
                    waiting.append(run)
                yield event
    finally:
        for pipe, (process, _) in working.items():
            pipe.close()
            process.terminate()  # it keeps what it has come to
        for pipe, (process, _) in working.items():
            _stop(pipe, process)


def _files_can_be_opened() -> bool:
    opened: list[int] = []
    try:
        while len(opened) < FILES_OF_A_START:
            opened.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        return False
    finally:
        for each in opened:
            os.close(each)
    return True


def _start(run: Run, work: Work) -> tuple[Connection, BaseProcess]:
    if _SERVED:
        _CONTEXT.set_forkserver_preload([__name__])
        resource_tracker.ensure_running()  # the server starts it, and it unblocks SIGINT
        with interrupts_blocked():
            forkserver.ensure_running()
    ours, theirs = _CONTEXT.Pipe()
    arguments = (theirs, outside_of(run), run, work)
    process = _CONTEXT.Process(target=_work, args=arguments, daemon=True)
    try:
        process.start()
    except EOFError:
        raise OSError("no process can be started: their server has ended") from None
    theirs.close()
    return ours, process


def _receive(pipe: Connection, process: BaseProcess, run: Run) -> Event:
    """The next event; if the process ended without a last one, that it failed."""
    try:
        event: Event = pipe.recv()
    except (EOFError, ConnectionResetError):
        process.join()
        code = process.exitcode or 0
        how = f"was killed by signal {-code}; out of memory?" if code < 0 else f"ended with {code}"
        return Failed(run.address, f"its process {how}")
    return event


def _stop(pipe: Connection, process: BaseProcess) -> None:
    """Wait for a process that has been told to stop, and end it if it does not."""
    pipe.close()
    process.join(SECONDS_TO_STOP)
    if process.is_alive():
        process.kill()
        process.join()
