"""How soon runs get there, where some were ended before they did."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import record
from scipy.stats import CensoredData, ecdf

from recall_arena.frame import frame_of
from recall_arena.outcomes import runs_of
from recall_arena.survival import kaplan_meier, reached_by, restricted_mean
from recall_arena.survival_figures import reached

TIMES = st.lists(st.tuples(st.booleans(), st.integers(1, 30)), min_size=1, max_size=40)


@given(TIMES)
def test_the_share_is_that_of_scipy(times: list[tuple[bool, int]]) -> None:
    reached = [at if did else None for did, at in times]
    found = kaplan_meier(reached, [at for _, at in times])
    did, at = np.array([did for did, _ in times]), np.array([float(at) for _, at in times])
    expected = ecdf(CensoredData(uncensored=at[did], right=at[~did])).cdf
    for time, share in found.select("at", "reached").rows():
        assert share == pytest.approx(float(expected.evaluate(time)))


def test_without_early_ends_it_is_the_share_of_runs() -> None:
    found = kaplan_meier([300, 100, None, 100], [400, 200, 1000, 700])
    assert found.rows() == [(100, 0.5, 4), (300, 0.75, 2)]
    assert restricted_mean(found, 1000) == pytest.approx((300 + 100 + 1000 + 100) / 4)
    assert restricted_mean(found, 200) == pytest.approx((200 + 100 + 200 + 100) / 4)
    assert restricted_mean(kaplan_meier([None], [50]), 50) == 50


def test_a_run_that_ended_early_says_nothing_of_later() -> None:
    found = kaplan_meier([None, 100, 300], [200, 900, 900])
    assert found["reached"].to_list() == pytest.approx([1 / 3, 1])


def test_each_setting_has_a_curve_from_the_first_check_to_its_budget() -> None:
    records = [record("mamba", seed, steps_99=at) for seed, at in enumerate((900, None, 500))]
    records += [record("hybrid-a", 0, steps_99=700)]
    table = reached_by(runs_of(frame_of(records)), "steps_99")
    own = table.filter(model="mamba")
    assert own["at"].to_list() == [100, 500, 900, 30_000]
    assert own["reached"].to_list() == pytest.approx([0, 1 / 3, 2 / 3, 2 / 3])
    assert set(own["runs"]) == {3}
    assert own["mean"][0] == pytest.approx((900 + 30_000 + 500) / 3)
    assert table.filter(pl.col("model") == "hybrid-a")["reached"].to_list() == [0, 1, 1]


def test_the_figure_draws_each_model_s_share_and_says_its_mean() -> None:
    records = [record("mamba", seed, steps_99=at) for seed, at in enumerate((900, None, 500))]
    records += [record("hybrid-a", 0, steps_99=700)]
    drawing = reached(frame_of(records), "How soon", ["tau"])
    (axis,) = drawing.figure.axes
    shares = sorted(max(line.get_ydata()) for line in axis.lines)
    assert shares == pytest.approx([2 / 3, 1])
    assert "τ = 1: Mamba 10,467, Hybrid-A 700" in drawing.caption
    empty = reached(frame_of([]), "How soon", ["tau"])
    assert empty.data.is_empty()
