"""Runs that a command has made: what is missing of them is executed, and shown at work."""

import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Annotated

import tyro

from recall_arena.cli import options
from recall_arena.cli.command import Mistake
from recall_arena.cli.console import errors
from recall_arena.cli.progress import follow
from recall_arena.cli.stopping import Stopped
from recall_arena.executors import (
    STAYING,
    Event,
    Failed,
    check_device_of,
    execute_all,
    missing,
    sweep,
)
from recall_arena.records import Store
from recall_arena.runs import Run


@dataclass(frozen=True)
class How:
    """How runs are executed; a device rounds as it does, nothing else decides what they find."""

    threads: Annotated[int, tyro.conf.arg(help="threads of each run")] = 1
    device: Annotated[
        str,
        tyro.conf.arg(
            help="where each run's tensors are: cpu, with the compiled kernels; cuda or mps, with "
            "the definitions in PyTorch, which small models gain nothing by; auto, whichever "
            "accelerator there is"
        ),
    ] = "cpu"
    executor: Annotated[
        str,
        tyro.conf.arg(
            help="where runs are trained: local; ray, the cluster at RAY_ADDRESS or one on this "
            "machine; slurm, by the settings in SBATCH_PARTITION, SBATCH_TIMELIMIT and the like"
        ),
    ] = "local"
    snapshot_every: Annotated[
        float,
        tyro.conf.arg(help="seconds after which an unfinished run is written down, to go on from"),
    ] = 30.0
    time_limit: Annotated[
        float,
        tyro.conf.arg(help="seconds after which to stop; the same command goes on from there"),
    ] = float("inf")
    fail_fast: Annotated[bool, tyro.conf.arg(help="stop at the first run that fails")] = False
    retry_failed: Annotated[
        bool,
        tyro.conf.arg(
            help="when all others are done, try each run that failed once more: one whose process "
            "ran out of memory may end well, one with a mistake in it fails again; not for slurm"
        ),
    ] = False
    quiet: options.Quiet = False

    def check(self) -> None:
        """Raises Mistake for numbers that cannot be meant."""
        options.check_threads(self.threads)
        for name in ("snapshot_every", "time_limit"):
            if not getattr(self, name) >= 0:  # nor NaN
                flag = "--" + name.replace("_", "-")
                raise Mistake(f"{flag} must be at least 0, got {getattr(self, name)}")
        if self.fail_fast and self.retry_failed:
            raise Mistake("--fail-fast stops where --retry-failed goes on: give one of them")
        if self.retry_failed and self.executor in STAYING:
            raise Mistake(f"--retry-failed is not for {self.executor}: call the command again")
        try:
            check_device_of(self.executor, self.device)
        except ValueError as error:
            raise Mistake(str(error)) from None


def finish(
    runs: list[Run],
    names: Mapping[str, str],
    store: Store,
    how: How,
    *,
    jobs: int | None = 1,
    keep_weights: bool,
) -> list[Failed]:
    """Execute the runs that the store lacks; those that failed, or for which there was no time.

    Raises Mistake, before any of them, for what no executor can do.
    """
    sweep(store, keep_weights=keep_weights)
    deadline = time.monotonic() + how.time_limit

    def tried(some: list[Run]) -> list[Failed]:
        try:
            events = execute_all(
                some,
                store,
                jobs=jobs,
                threads=how.threads,
                keep_weights=keep_weights,
                snapshot_seconds=how.snapshot_every,
                executor=how.executor,
                device=how.device,
            )
        except ValueError as error:
            raise Mistake(str(error)) from None
        with closing(events):
            within = _until(deadline, events)
            asked = {run.address: names[run.address] for run in some}
            return follow(within, asked, quiet=how.quiet, fail_fast=how.fail_fast)

    try:
        failed = tried(runs)
        if how.retry_failed and failed and time.monotonic() < deadline:
            again = {one.address for one in failed}
            errors(f"{len(again)} of {len(runs)} runs failed; trying them once more")
            failed = tried([run for run in runs if run.address in again])
    except Stopped:
        _say_what_stays(how.executor)
        raise
    ended = {one.address for one in failed}
    missed = missing(runs, store, keep_weights=keep_weights)
    left = [run for run in missed if run.address not in ended]
    if left and not failed:
        errors(f"{len(left)} runs are not finished; the same command goes on from there")
    if left:
        _say_what_stays(how.executor)
    return failed + [Failed(run.address, "it is not finished") for run in left]


def _until(deadline: float, events: Iterator[Event]) -> Iterator[Event]:
    """The events up to a time."""
    for event in events:
        yield event
        if time.monotonic() >= deadline:
            return


def _say_what_stays(executor: str) -> None:
    if executor in STAYING:
        errors(STAYING[executor])
