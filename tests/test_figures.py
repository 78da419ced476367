"""Figures: what they draw is what the records say, and readers can tell the curves apart."""

import subprocess
import sys
from itertools import combinations
from pathlib import Path

import polars as pl
import pytest
from matplotlib.colors import to_rgb
from scipy.stats import norm

from recall_arena import figures
from recall_arena.figures import Series
from recall_arena.intervals import wilson
from recall_arena.records import Tally
from recall_arena.zoo import ZOO


def tally(at: list[int], correct: list[int], total: int = 1000) -> Tally:
    """Counts of one query and no repeats."""
    rows = len(at)
    return Tally(
        at=at,
        total=[total] * rows,
        correct=correct,
        total_by_query=[[total]] * rows,
        correct_by_query=[[right] for right in correct],
        total_repeats=[0] * rows,
        correct_repeats=[0] * rows,
    )


@pytest.mark.parametrize(("correct", "total"), [(0, 10), (7, 10), (999, 1000), (1000, 1000)])
def test_wilson_solves_the_equation_that_defines_it(correct: int, total: int) -> None:
    z, share = norm.ppf(0.975), correct / total
    for bound in wilson(correct, total):
        assert (share - bound) ** 2 == pytest.approx(z**2 * bound * (1 - bound) / total, abs=1e-12)


def test_every_model_has_a_look_that_no_other_has() -> None:
    assert set(ZOO) == set(ZOO)
    looks = list(ZOO.values())
    assert len({look.colour for look in looks}) == len({look.marker for look in looks}) == 6


def test_colours_differ_in_lightness_or_hue_for_red_green_blind_readers() -> None:
    """Deuteranopia as Vienot, Brettel & Mollon (1999) simulate it, in linear RGB."""

    def seen(colour: str) -> tuple[float, float]:
        red, green, blue = (c**2.2 for c in to_rgb(colour))
        return 0.29275 * red + 0.70725 * green, -0.02234 * red + 0.02234 * green + blue

    for one, two in combinations(ZOO.values(), 2):
        (a, b), (c, d) = seen(one.colour), seen(two.colour)
        assert abs(a - c) + abs(b - d) > 0.1, (one.label, two.label)


def test_accuracy_by_context_draws_the_shares_the_band_the_length_and_chance() -> None:
    figure, (axis,) = figures.new_figure(1)
    one = Series("mamba", (tally([2, 64, 192], [500, 1000, 250]),))
    figures.accuracy_by_context(axis, [one], trained=64, chance=1 / 16)

    curves = {line.get_label(): line for line in axis.get_lines()}
    assert list(curves["Mamba"].get_xydata()[:, 1]) == [0.5, 1.0, 0.25]
    assert any(list(line.get_xdata()) == [64, 64] for line in axis.get_lines())
    assert any(list(line.get_ydata()) == [1 / 16, 1 / 16] for line in axis.get_lines())
    band = axis.collections[0].get_paths()[0].vertices
    low, high = wilson(500, 1000)
    at_two = sorted({round(float(y), 9) for x, y in band if x == 2})
    assert at_two == [round(low, 9), round(high, 9)]
    assert {text.get_text() for text in axis.texts} == {"L = 64", "chance"}
    assert figure is axis.figure


def test_several_seeds_show_their_median_and_their_extremes() -> None:
    seeds = tuple(tally([64], [right]) for right in (100, 300, 900))
    _, (axis,) = figures.new_figure(1)
    figures.accuracy_by_context(axis, [Series("hybrid-a", seeds)], trained=64, chance=1 / 16)

    (line,) = [line for line in axis.get_lines() if line.get_label() == "Hybrid-A"]
    assert list(line.get_ydata()) == [0.3]
    band = axis.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == (0.1, 0.9)


def test_convergence_shows_every_seed_and_carries_a_solved_one_on() -> None:
    seeds = (tally([100], [1000]), tally([100, 200], [200, 400]), tally([100, 200], [0, 600]))
    _, (axis,) = figures.new_figure(1)
    figures.convergence(axis, [Series("mamba", seeds)], chance=1 / 16)

    (median,) = [line for line in axis.get_lines() if line.get_label() == "Mamba"]
    assert list(median.get_ydata()) == [0.2, 0.6]
    thin = [line for line in axis.get_lines() if line.get_color() == ZOO["mamba"].colour]
    assert len(thin) == 4


def test_a_staircase_shows_each_query() -> None:
    stairs = Tally([1, 2], [8, 8], [4, 6], [[4, 4], [4, 4]], [[4, 0], [4, 2]], [0, 0], [0, 0])
    _, (axis,) = figures.new_figure(1)
    figures.accuracy_by_query(axis, stairs, model="mamba", chance=1 / 16)
    drawn = [list(line.get_ydata()) for line in axis.get_lines()]
    assert drawn[:3] == [[1.0, 1.0], [0.0, 0.5], [0.5, 0.75]]


def test_a_figure_is_saved_four_ways_with_the_same_bytes_each_time(tmp_path: Path) -> None:
    for name in ("one", "two"):
        figure, (axis,) = figures.new_figure(1)
        figures.convergence(axis, [Series("mamba", (tally([100], [9]),))], chance=0.1)
        figures.share_legend(figure, [axis])
        figures.save(figure, pl.DataFrame({"at": [100]}), tmp_path / name)
    for ending in ("svg", "pdf", "png", "csv"):
        one, two = (tmp_path / f"{name}.{ending}" for name in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()
        assert one.stat().st_size > 0


@pytest.mark.parametrize("module", ["figures", "records", "intervals"])
def test_redrawing_needs_no_torch(module: str) -> None:
    code = f"import sys, recall_arena.{module}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
