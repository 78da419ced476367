"""Many runners on one store: each run is trained once, whoever dies."""

import itertools
import json
import random
import time
from dataclasses import replace
from pathlib import Path

import pytest
from test_resuming import LONG, runner
from torture import Figures, Scale
from training_checks import finish, same

from recall_arena.records import Store

pytestmark = pytest.mark.whole


def test_runners_share_a_study_and_a_dead_ones_run_is_taken_over(
    tmp_path: Path, scale: Scale, figures: Figures
) -> None:
    many, deaths = scale(2, 8), scale(1, 4)
    runs = [replace(LONG, seed=seed) for seed in range(scale(4, 64))]
    store, draw = Store(tmp_path), random.Random(0)
    dying = [runner(runs, store, "tell") for _ in range(deaths)]
    runners = [runner(runs, store) for _ in range(many)]
    lost = set()
    for each in dying:
        assert each.stdout is not None
        each.stdout.readline()  # it is at work
        time.sleep(draw.uniform(0.0, 2.0))
        each.kill()
        told = [line.split() for line in each.communicate()[0].splitlines()]
        lost |= {words[0] for words in told[-1:] if len(words) == 2}
    trained = [json.loads(each.communicate(timeout=600)[0]) for each in runners]
    assert all(each.returncode == 0 for each in runners)
    records = {record.address for record in store}
    assert records == {run.address for run in runs}
    times = list(itertools.chain.from_iterable(trained))
    twice = len(times) - len(set(times))
    assert twice == 0, "a run was trained by two runners"
    assert all(same(store.read(run.address), finish(run)[1]) for run in runs[:: len(runs) // 4])
    taken_over = len(lost & set(times))
    assert taken_over >= scale(0, 1), "no runner died at work"
    ends = {"runs taken over": taken_over, "trained twice": twice}
    figures(runners=many, deaths=deaths, runs=len(runs), **ends)
