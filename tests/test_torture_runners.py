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

from recall_arena.records import Store

pytestmark = pytest.mark.whole


def test_runners_share_a_study_and_a_dead_ones_run_is_taken_over(
    tmp_path: Path, scale: Scale, figures: Figures
) -> None:
    many, deaths = scale(2, 8), scale(1, 4)
    runs = [replace(LONG, seed=seed) for seed in range(scale(4, 64))]
    store, draw = Store(tmp_path), random.Random(0)
    runners = [runner(runs, store) for _ in range(many)]
    dying = [runner(runs, store) for _ in range(deaths)]
    for each in dying:
        time.sleep(draw.uniform(2.0, 4.0))
        each.kill()
    trained = [json.loads(each.communicate(timeout=600)[0]) for each in runners]
    assert all(each.returncode == 0 for each in runners)
    for each in dying:
        each.communicate()
    records = {record.address for record in store}
    assert records == {run.address for run in runs}
    times = list(itertools.chain.from_iterable(trained))
    assert len(times) == len(set(times)), "a run was trained by two runners"
    figures(runners=many, deaths=deaths, runs=len(runs), trained=len(times))
