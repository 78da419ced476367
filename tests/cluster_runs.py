"""Runs for tests of executors, long enough to be broken off, and what each of them must come to."""

import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from training_checks import finish, same

from recall_arena.evaluation import Contexts
from recall_arena.model import ModelSpec, named
from recall_arena.records import Store
from recall_arena.runs import Checks, Run
from recall_arena.tasks import AssociativeRecall
from recall_arena.training import Schedule

RUN = Run(
    AssociativeRecall(),
    named("mamba", width=8),
    Schedule(rate=1e-2, steps=30, context=12, batch=4, warmup=3),
    Checks(every=50, sequences=20, running=10_000),  # never, so that they last
    Contexts(first=4, last=12, stride=4, sequences=20),
)
BAD = replace(RUN, model=ModelSpec(("attention",), positions="learned", max_length=3))


def runs(number: int, steps: int = 30) -> list[Run]:
    """Runs that differ in their seed."""
    schedule = replace(RUN.schedule, steps=steps)
    return [replace(RUN, schedule=schedule, seed=seed) for seed in range(number)]


def same_as_here(store: Store, some: Iterable[Run]) -> bool:
    """Whether the store has of each run what it comes to without a break in this process."""
    return all(same(store.read(run.address), finish(run)[1]) for run in some)


def until(there_is: Callable[[], object], seconds: float = 180) -> None:
    """Wait for something; AssertionError if it does not come."""
    deadline = time.monotonic() + seconds
    while not there_is():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)
