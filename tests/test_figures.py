"""Figures: what they draw is what the frame says, and readers can tell the curves apart."""

from itertools import combinations
from pathlib import Path

import polars as pl
import pytest
import torch
from made_up import record, tally
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D
from scipy.stats import norm
from torch.nn import functional as F

from recall_arena.canvas import save
from recall_arena.figures import Drawing, by_context, by_iterations, by_rate, known_queries
from recall_arena.floor import order_free
from recall_arena.frame import frame_of
from recall_arena.intervals import wilson
from recall_arena.records import Record
from recall_arena.tasks import AssociativeRecall
from recall_arena.zoo import ZOO

MANY = [record(model, seed, at_L=0.1 + 0.3 * seed) for model in ZOO for seed in range(3)]


def lines(axis: Axes, model: str) -> tuple[list[Line2D], list[Line2D]]:
    """The thin and the bold lines of a model."""
    own = [line for line in axis.get_lines() if line.get_color() == ZOO[model].colour]
    return [li for li in own if li.get_linewidth() < 1], [
        li for li in own if li.get_linewidth() > 1
    ]


def drawn(drawing: Drawing, model: str) -> tuple[list[list[float]], list[float]]:
    """What the first panel shows of a model: the values of each run, and their median."""
    thin, (bold,) = lines(drawing.figure.axes[0], model)
    return [list(line.get_ydata()) for line in thin], list(bold.get_ydata())


@pytest.mark.parametrize(("correct", "total"), [(0, 10), (7, 10), (999, 1000), (1000, 1000)])
def test_wilson_solves_the_equation_that_defines_it(correct: int, total: int) -> None:
    z, share = norm.ppf(0.975), correct / total
    for bound in wilson(correct, total):
        assert (share - bound) ** 2 == pytest.approx(z**2 * bound * (1 - bound) / total, abs=1e-12)


def test_every_model_has_a_look_that_no_other_has() -> None:
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


@pytest.mark.parametrize("context", [2, 3, 16, 64])
@pytest.mark.parametrize(("queries", "delay"), [(1, 1), (16, 1)])
def test_the_floor_is_what_a_reader_that_ignores_order_gets(
    context: int, queries: int, delay: int
) -> None:
    task, asked = AssociativeRecall(16, queries, delay), 40_000
    batch = task.sample(asked, context, torch.Generator().manual_seed(0))
    body, query = batch.tokens[:, :-1], batch.tokens[:, -1:]
    counts = F.one_hot(body, 16).sum(dim=1).float()
    twice = counts.gather(1, query).squeeze(1) > 1
    others = counts.scatter(1, query, -1.0).argmax(dim=1)
    right = torch.where(twice, query.squeeze(1), others) == batch.answers

    share = order_free(16, context)
    assert right.float().mean().item() == pytest.approx(share, abs=4 / asked**0.5 / 2)


def test_the_floor_is_that_of_the_published_audit() -> None:
    found = [round(order_free(16, context), 3) for context in (2, 16, 64, 192, 16_384)]
    assert found == [1, 0.252, 0.183, 0.157, 0.128]


def test_every_run_is_drawn_thin_and_their_median_bold() -> None:
    runs, median = drawn(by_context(frame_of(MANY), "Here", ["tau"]), "mamba")
    assert [run[1] for run in runs] == [0.1, 0.4, 0.7]
    assert median[1] == 0.4


def test_the_length_chance_and_the_floor_are_drawn() -> None:
    drawing = by_context(frame_of(MANY), "Here", ["tau"])
    drawn = [list(map(float, line.get_ydata())) for line in drawing.figure.axes[0].get_lines()]
    assert [1 / 16, 1 / 16] in drawn
    assert [order_free(16, length) for length in (32, 64, 128, 192)] in drawn
    assert any(list(li.get_xdata()) == [64, 64] for li in drawing.figure.axes[0].get_lines())


def test_a_solved_run_goes_on_in_the_median_and_a_diverged_one_counts_as_zero() -> None:
    checks = [tally({100: 1.0}), tally({100: 0.9}), tally({100: 0.2, 200: 0.6})]
    ends = ("solved", "diverged", "budget")
    records = [
        record(seed=seed, checks=own, ended_by=end)
        for seed, (own, end) in enumerate(zip(checks, ends, strict=True))
    ]
    runs, median = drawn(by_iterations(frame_of(records), "Here", ["tau"]), "mamba")
    assert runs == [[1.0], [0.9], [0.2, 0.6]]
    assert median == [0.9, 0.6]


DIVERGED = record(seed=1, checks=tally({}), contexts=tally({}), ended_by="diverged")
SHORTER = record(seed=2, contexts=tally({64: 0.5}))


@pytest.mark.one_in(3)
@pytest.mark.parametrize(
    "records", [[], [DIVERGED], [record(), DIVERGED], [record(), SHORTER, DIVERGED], MANY[:7]]
)
@pytest.mark.parametrize("panel", [["tau"], ["M", "d"], ["model"]])
def test_missing_diverged_and_shorter_runs_take_no_figure_down(
    records: list[Record], panel: list[str], tmp_path: Path
) -> None:
    frame = frame_of(records)
    for draw in (by_context, by_iterations, known_queries):
        drawing = draw(frame, "Here", panel)
        save(drawing.figure, drawing.data, tmp_path / "figure")
        assert ("No run is finished" in drawing.caption) == (not records)


def test_queries_known_are_a_staircase() -> None:
    stairs = tally({1: 0.5, 2: 0.75}, by_query=[[1.0, 0.0], [1.0, 0.95]])
    runs, _ = drawn(known_queries(frame_of([record(checks=stairs, M=2)]), "Here", ["M"]), "mamba")
    assert runs == [[0.5, 1.0]]


def test_panels_and_dashes_follow_from_the_columns() -> None:
    frame = frame_of([record(tau=tau, M=M) for tau in (1, 5) for M in (4, 16)])
    drawing = by_context(frame, "Here", ["M"], "tau")
    assert [axis.get_title() for axis in drawing.figure.axes] == ["M = 4", "M = 16"]
    for axis in drawing.figure.axes:
        _, bold = lines(axis, "mamba")
        assert [line.get_linestyle() for line in bold] == ["-", "--"]
    assert {text.get_text() for text in drawing.figure.legends[0].get_texts()} >= {"τ = 1", "τ = 5"}


def test_figures_do_not_depend_on_the_order_of_records() -> None:
    one, other = (by_context(frame_of(own), "Here", ["tau"]) for own in (MANY, MANY[::-1]))
    assert one.caption == other.caption
    assert one.data.equals(other.data)


@pytest.mark.parametrize("draw", [by_context, by_iterations, known_queries])
def test_a_figure_s_numbers_are_those_that_it_draws(draw) -> None:
    drawing = draw(frame_of(MANY), "Here", ["tau"])
    for model in ZOO:
        runs, median = drawn(drawing, model)
        own = drawing.data.filter(pl.col("model") == model)
        assert own.filter(pl.col("curve") == "median")["value"].to_list() == median
        assert own.filter(pl.col("curve") == "run")["value"].to_list() == [
            v for run in runs for v in run
        ]


def test_captions_say_what_the_runs_were() -> None:
    records = [
        record(M=M, rate=rate, seed=s) for M, rate in ((4, 0.01), (8, 0.003)) for s in (0, 1)
    ]
    caption = by_context(frame_of(records), "Here", ["M"]).caption
    for fact in (
        *(
            "Here",
            "n = 1,000",
            "K = 16",
            "M = 4 and 8",
            "τ = 1",
            "d = 8",
            "L = 64",
            "batches of 64",
        ),
        *("rates 0.003 and 0.01", "at most 30,000 iterations", "2 seeds a curve", "chance"),
    ):
        assert fact in caption


def test_a_mixture_of_rates_shows_which_was_chosen() -> None:
    setting = {"model": "mamba", "d": 8, "M": 1, "tau": 1, "K": 16, "L": 64, "budget": 100}
    trials = pl.DataFrame(
        [
            {**setting, "rate": 0.001, "validation": 0.2, "chosen": False},
            {**setting, "rate": 0.01, "validation": 0.9, "chosen": True},
        ]
    )
    (axis,) = by_rate(trials, "Here", ["M"]).figure.axes
    marks = [line for line in axis.get_lines() if line.get_marker() == ZOO["mamba"].marker]
    assert [(li.get_ydata()[0], li.get_markersize()) for li in marks] == [(0.2, 4), (0.9, 8)]


def test_a_figure_is_saved_four_ways_with_the_same_bytes_each_time(tmp_path: Path) -> None:
    for name in ("one", "two"):
        drawing = by_iterations(frame_of(MANY), "Here", ["tau"])
        save(drawing.figure, drawing.data, tmp_path / name)
    for ending in ("svg", "pdf", "png", "csv"):
        one, two = (tmp_path / f"{name}.{ending}" for name in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()
        assert one.stat().st_size > 0
