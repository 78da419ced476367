"""The frame: what records say, in one table, whatever their order and however they ended."""

import random
import subprocess
import sys
from dataclasses import asdict

import polars as pl
import pytest
from made_up import record, tally

from recall_arena.frame import frame_of
from recall_arena.outcomes import ACCURACY, BY_QUERY, KNOWN, runs_of
from recall_arena.zoo import ZOO, look_of, name_of


def test_a_record_has_a_row_for_itself_and_one_for_each_check_and_length() -> None:
    frame = frame_of([record("hybrid-a", M=4, tau=5, d=64, seed=3, steps_99=900)])
    kinds = dict(frame.group_by("kind").len().rows())
    assert kinds == {"run": 1, "check": 2, "test": 4}
    (run,) = frame.filter(pl.col("kind") == "run").rows(named=True)
    described = {name: run[name] for name in ("model", "d", "M", "tau", "L", "K", "seed", "at")}
    assert described == {
        "model": "hybrid-a",
        "d": 64,
        "M": 4,
        "tau": 5,
        "L": 64,
        "K": 16,
        "seed": 3,
        "at": 900,
    }


def test_the_order_of_records_does_not_matter_and_none_counts_twice() -> None:
    records = [record(model, seed) for model in ZOO for seed in range(3)]
    shuffled = records + records[:5]
    random.Random(0).shuffle(shuffled)
    assert frame_of(shuffled).equals(frame_of(records))
    assert runs_of(frame_of(shuffled)).height == len(records)


def test_no_records_give_an_empty_table_with_all_columns() -> None:
    empty, one = frame_of([]), frame_of([record()])
    assert empty.schema == one.schema
    assert runs_of(empty).schema == runs_of(one).schema


def test_accuracy_at_l_is_that_of_the_test_and_validation_is_called_so() -> None:
    one = record(at_L=0.7, checks=tally({100: 0.2, 200: 0.4}))
    (run,) = runs_of(frame_of([one])).rows(named=True)
    assert (run["at_L"], run["validation"]) == (0.7, 0.4)


def test_recall_is_counted_without_the_sequences_whose_value_is_the_query() -> None:
    always_answers_q = record(contexts=tally({64: 0.05}, repeats=1.0))
    (run,) = runs_of(frame_of([always_answers_q])).rows(named=True)
    assert (run["at_L"], run["apart_L"]) == (0.05, 0.0)


def test_accuracy_beyond_and_below_is_that_over_all_such_lengths() -> None:
    contexts = tally({2: 0.2, 63: 0.4, 64: 1.0, 65: 0.5, 191: 0.7, 192: 0.3})
    (run,) = runs_of(frame_of([record(contexts=contexts)])).rows(named=True)
    assert run["below"] == pytest.approx(0.3)
    assert run["beyond"] == pytest.approx(0.5)
    assert run["at_3L"] == 0.3


def test_steps_are_those_of_the_first_check_that_is_good_enough() -> None:
    checks = tally({100: 0.6, 200: 0.4, 300: 0.95, 24_100: 0.99})
    (run,) = runs_of(frame_of([record(checks=checks)])).rows(named=True)
    assert [run[f"steps_{share}"] for share in (50, 90, 99)] == [100, 300, 24_100]
    assert run["in_decay"], "the last fifth of 30,000 iterations begins at 24,000"


def test_a_run_that_diverged_at_once_has_a_row_and_nulls() -> None:
    nothing = record(ended_by="diverged", checks=tally({}), contexts=tally({}))
    (run,) = runs_of(frame_of([nothing])).rows(named=True)
    assert run["ended_by"] == "diverged"
    assert run["at_L"] is run["validation"] is run["steps_99"] is run["in_decay"] is None


def test_a_query_is_known_from_nine_answers_in_ten_and_unasked_ones_do_not_count() -> None:
    checks = tally({100: 0.5}, by_query=[[1.0, 0.9, 0.5, 0.0]])
    checks.total_by_query[0].append(0)
    checks.correct_by_query[0].append(0)
    rows = frame_of([record(checks=checks, M=8)]).filter(pl.col("kind") == "check")
    assert rows.select(BY_QUERY.alias("by")).item().to_list() == [1.0, 0.9, 0.5, 0.0, None]
    assert rows.select(known=KNOWN, share=ACCURACY).row(0) == (0.5, 0.5)


def test_a_stack_without_a_name_is_called_by_its_layers() -> None:
    stack = {"layers": ["mamba", "attention-rope"], "positions": "none"}
    assert name_of(stack) == "mamba,attention-rope"
    assert name_of({**stack, "norm": "rms"}) == "mamba,attention-rope; norm=rms"
    assert look_of("mamba,attention-rope").label == "mamba,attention-rope"
    assert [name_of(asdict(look)) for look in ZOO.values()] == list(ZOO)


WITHOUT_TORCH = """
import importlib, sys
for name in "frame claims rules figures report cli.report cli.runs cli.export".split():
    importlib.import_module(f"recall_arena.{name}")
    assert "torch" not in sys.modules, name
"""


def test_reports_and_lists_need_no_torch() -> None:
    subprocess.run([sys.executable, "-c", WITHOUT_TORCH], check=True)
