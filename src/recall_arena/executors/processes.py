"""Runs in local processes, one process a run, each with threads of its own.

A run that crashes or is killed takes nothing down with it.  The processes come from a server
that has imported torch already, so that a new one costs milliseconds.  Server and processes
leave Ctrl-C to the parent: when it gives up it closes its end of their pipes, and when it dies
the system does; either way they stop at their next news.
"""

import multiprocessing
import signal
from collections import deque
from collections.abc import Generator
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from recall_arena.executors.events import Advanced, Event, Failed
from recall_arena.executors.here import execute_here
from recall_arena.executors.memory import keep_freed_memory
from recall_arena.executors.outside import Outside, outside_of
from recall_arena.executors.signals import deferred, interrupts_blocked
from recall_arena.records import Store
from recall_arena.runs import Run

SECONDS_TO_STOP = 30.0
_SERVED = "forkserver" in multiprocessing.get_all_start_methods()
_CONTEXT = (
    multiprocessing.get_context("forkserver") if _SERVED else multiprocessing.get_context("spawn")
)


def _work(
    pipe: Connection, outside: Outside, run: Run, store: Store, threads: int, keep_weights: bool
) -> None:
    outside.add()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    keep_freed_memory()
    for event in execute_here([run], store, threads, keep_weights):
        if pipe.poll():  # the parent never sends, so this is the end of its pipe
            return
        try:
            pipe.send(event)
        except ConnectionError:
            return


def execute_in_processes(
    runs: list[Run], store: Store, jobs: int, threads: int, keep_weights: bool
) -> Generator[Event, None, None]:
    """Execute runs in up to `jobs` processes of `threads` threads each, telling news."""
    waiting = deque(runs)
    working: dict[Connection, tuple[BaseProcess, Run]] = {}
    try:
        while waiting or working:
            while waiting and len(working) < jobs:
                run = waiting.popleft()
                with deferred():
                    pipe, process = _start(run, store, threads, keep_weights)
                    working[pipe] = process, run
            for ready in wait(list(working)):
                assert isinstance(ready, Connection)
                event = _receive(ready, *working[ready])
                if not isinstance(event, Advanced):
                    _stop(ready, working.pop(ready)[0])
                yield event
    finally:
        for pipe in working:
            pipe.close()
        for pipe, (process, _) in working.items():
            _stop(pipe, process)


def _start(
    run: Run, store: Store, threads: int, keep_weights: bool
) -> tuple[Connection, BaseProcess]:
    if _SERVED:
        _CONTEXT.set_forkserver_preload([__name__])
        resource_tracker.ensure_running()  # the server starts it, and it unblocks SIGINT
        with interrupts_blocked():
            forkserver.ensure_running()
    ours, theirs = _CONTEXT.Pipe()
    arguments = (theirs, outside_of(run), run, store, threads, keep_weights)
    process = _CONTEXT.Process(target=_work, args=arguments, daemon=True)
    process.start()
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
