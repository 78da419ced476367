"""Many runners on one store: each run is trained once, whoever dies."""

import itertools
import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from test_resuming import LONG, runner
from torture import Figures, Scale
from training_checks import finish, same

from recall_arena.records import Store

pytestmark = pytest.mark.whole

STEPS = 2500
"""So many take long enough to be told of while they are taken."""


def killed_at_work(process: "subprocess.Popen[str]") -> str:
    """Kill a runner when it tells that it is within a run's training; that run, "" for none."""
    assert process.stdout is not None
    for line in process.stdout:
        address, *step = line.split()
        if step and int(step[0]) < STEPS:
            process.kill()
            process.communicate()
            return address
    process.communicate()
    return ""  # the others were faster


def test_runners_share_a_study_and_a_dead_ones_run_is_taken_over(
    tmp_path: Path, scale: Scale, figures: Figures
) -> None:
    many, deaths = scale(2, 8), scale(1, 4)
    plan = replace(LONG.schedule, steps=STEPS)
    runs = [replace(LONG, schedule=plan, seed=seed) for seed in range(scale(4, 64))]
    store = Store(tmp_path)
    dying = [runner(runs, store, "tell") for _ in range(deaths)]
    with ThreadPoolExecutor(deaths) as threads:
        killed = threads.map(killed_at_work, dying)
        runners = [runner(runs, store) for _ in range(many)]
        lost = {*killed}
    trained = [json.loads(each.communicate(timeout=600)[0]) for each in runners]
    assert all(each.returncode == 0 for each in runners)
    records = {record.address for record in store}
    assert records == {run.address for run in runs}
    times = list(itertools.chain.from_iterable(trained))
    twice = len(times) - len(set(times))
    assert twice == 0, "a run was trained by two runners"
    assert all(same(store.read(run.address), finish(run)[1]) for run in runs[:: len(runs) // 4])
    taken_over = len(lost & set(times))
    assert taken_over >= scale(0, 1), "no runner died at work"  # of one the others may be faster
    ends = {"runs taken over": taken_over, "trained twice": twice}
    figures(runners=many, deaths=deaths, runs=len(runs), **ends)
