"""What an executor and its snapshots cost, beside the bare loop."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest
from test_resuming import RUNS
from torture import Figures, Scale

from recall_arena.execution import Execution
from recall_arena.executors import execute_all
from recall_arena.records import Store
from recall_arena.runs import Run
from recall_arena.training import Schedule

pytestmark = pytest.mark.whole


def seconds_at_work(work: Callable[[], object]) -> float:
    """Of this process's processors, which other processes do not lengthen by much."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def test_snapshots_and_the_executor_cost_little(
    tmp_path: Path, scale: Scale, figures: Figures
) -> None:
    """By default with snapshots every quarter of a second, which are written every 30 otherwise."""
    schedule = Schedule(rate=1e-3, steps=scale(100, 20_000))
    run = replace(RUNS["mamba"], schedule=schedule)
    every, most = scale(1, 120) / 4, scale(50, 3) / 100
    bare, executed = [], []
    for seed in range(scale(3, 3)):
        one: Run = replace(run, seed=seed)
        bare.append(seconds_at_work(lambda one=one: list(Execution(one))))
        events = execute_all([one], Store(tmp_path), snapshot_seconds=every)
        executed.append(seconds_at_work(lambda events=events: list(events)))
    ratios = [b / a for a, b in zip(bare, executed, strict=True)]
    assert median(ratios) < 1 + most
    figures(bare=round(median(bare), 1), percent=round(100 * (median(ratios) - 1), 2))
