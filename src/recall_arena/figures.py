"""Figures as functions of a frame: every run thin, the median over runs bold.

A drawing's data are what is drawn, no more and no less: a row a point, `curve` telling the runs
from their median.  Runs that are missing, that diverged or that ended early are no error.

`panel` names the columns whose values have a panel each; `variant` is a column whose values are
told apart by dashes; `what` begins the caption, and the rest of it follows from the runs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from recall_arena.canvas import (
    DASHES,
    MODELS,
    accuracy_axis,
    groups,
    iterations_axis,
    legend,
    opacity,
    panels,
)
from recall_arena.curves import curves
from recall_arena.outcomes import ACCURACY, APART, KNOWN
from recall_arena.wording import facts, name_of_value, values
from recall_arena.zoo import look_of

LEVELS = "Dash-dotted: a reader that ignores order. Dotted: chance."
GOES_ON = (
    "A run that was solved stops, and goes on with its last value in the median; one that diverged "
    "counts as 0 from there on."
)


@dataclass(frozen=True)
class Curve:
    """A line of a figure, or a mark, and whose it is; the id of the line is `curve-N`.

    model    as people write it
    seed     of the run, None for a median
    variant  what its dashes stand for, "τ = 5", or nothing
    points   at, value and, where they are known, asked (sequences), apart (the value among those
             whose value is not the query) and asked_apart
    """

    line: Line2D
    model: str
    seed: int | None
    variant: str
    points: pl.DataFrame


@dataclass(frozen=True)
class Drawing:
    """A figure, the numbers in it, what it shows, and its curves."""

    figure: Figure
    data: pl.DataFrame
    caption: str
    curves: tuple[Curve, ...]


def by_context(
    frame: pl.DataFrame, what: str, panel: Sequence[str], variant: str | None = None
) -> Drawing:
    """Test accuracy against context length."""
    data = curves(frame, "test", ACCURACY, APART)
    figure, axes, drawn = _draw(data, panel, variant)
    for axis in axes:
        accuracy_axis(axis, "test accuracy", "context length (tokens before the query)")
        for trained in data["L"].unique().sort():
            axis.axvline(trained, color="0.35", linewidth=0.9, linestyle="--", zorder=0)
            axis.text(trained, 0.0, f" L = {trained}", fontsize=7, color="0.35")
            axis.set_xticks(range(0, 3 * trained + 1, max(1, trained // 2)))
    caption = (
        f"{what}: test accuracy against context length, n = {values(data, 'asked')} sequences a "
        f"length, the same for all runs. {facts(frame)} {LEVELS}"
    )
    return Drawing(figure, data, caption, drawn)


def by_iterations(
    frame: pl.DataFrame, what: str, panel: Sequence[str], variant: str | None = None
) -> Drawing:
    """Validation accuracy at the training length against iterations."""
    data = curves(frame, "check", ACCURACY, goes_on=True)
    figure, drawn = _along_training(data, panel, variant, "validation accuracy")
    caption = (
        f"{what}: accuracy on one validation batch of length L, n = {values(data, 'asked')} "
        f"sequences, the same for all runs. {facts(frame)} {GOES_ON} {LEVELS}"
    )
    return Drawing(figure, data, caption, drawn)


def known_queries(frame: pl.DataFrame, what: str, panel: Sequence[str]) -> Drawing:
    """The share of queries of which at least 90 % are answered right, against iterations."""
    data = curves(frame, "check", KNOWN, goes_on=True).drop("chance", "floor")
    figure, drawn = _along_training(data, panel, None, "queries known")
    caption = (
        f"{what}: the share of the M queries of which at least 90 % are answered right on the "
        f"validation batch, n = {values(data, 'asked')} sequences, about n / M a query. "
        f"{facts(frame)} {GOES_ON}"
    )
    return Drawing(figure, data, caption, drawn)


def by_rate(trials: pl.DataFrame, what: str, panel: Sequence[str]) -> Drawing:
    """Validation accuracy when a search run ended against its rate, and which was chosen.

    trials  model, d, M, tau, K, rate, validation, chosen and whatever else is known of them
    """
    data = trials.with_columns(chance=1 / pl.col("K"))
    figure, axes = panels(data, panel, height=2.5)
    drawn: list[Curve] = []
    for axis, rows in axes:
        for (model,), tried in groups(rows, ["model"]):
            drawn += _tried(axis, tried.sort("rate"), model)
        _level(axis, rows)
        accuracy_axis(axis, "validation accuracy", "learning rate")
        axis.set_xscale("log")
        rates = sorted(set(rows["rate"]))
        axis.set_xticks(rates, [f"{rate:g}" for rate in rates])
        axis.minorticks_off()
    legend(figure, data)
    caption = (
        f"{what}: validation accuracy at L = {values(data, 'L')} when the run ended, after at most "
        f"{values(data, 'budget')} iterations, against the learning rate; a mark a run, a line "
        "through the medians. Large filled markers: the rate chosen. A run that diverged shows its "
        "last check. Dotted: chance."
    )
    return Drawing(figure, data, caption, _numbered(drawn))


def _along_training(
    data: pl.DataFrame, panel: Sequence[str], variant: str | None, what: str
) -> tuple[Figure, tuple[Curve, ...]]:
    figure, axes, drawn = _draw(data, panel, variant)
    for axis in axes:
        accuracy_axis(axis, what, "iterations")
        iterations_axis(axis)
    return figure, drawn


def _draw(
    data: pl.DataFrame, panel: Sequence[str], variant: str | None
) -> tuple[Figure, list[Axes], tuple[Curve, ...]]:
    figure, axes = panels(data, panel)
    told_apart = [] if variant is None else sorted(data[variant].unique())
    drawn: list[Curve] = []
    for axis, rows in axes:
        for (model, *rest), own in groups(rows, ["model", *([variant] if variant else [])]):
            told = name_of_value(str(variant), rest[0]) if rest else ""
            drawn += _lines(axis, own, model, told, told_apart.index(rest[0]) if rest else 0)
        if "floor" in rows.columns:
            floor = rows.select("at", "floor").drop_nulls().unique().sort("at")
            (line,) = axis.plot(floor["at"], floor["floor"], "-.", color="0.45", linewidth=0.9)
            line.set(zorder=0, gid=f"floor-{len(drawn)}")
            _level(axis, rows)
    legend(figure, data, variant, models="model" not in panel)
    return figure, [axis for axis, _ in axes], _numbered(drawn)


def _numbered(drawn: Sequence[Curve]) -> tuple[Curve, ...]:
    for number, curve in enumerate(drawn):
        curve.line.set_gid(f"curve-{number}")
    return tuple(drawn)


def _lines(axis: Axes, rows: pl.DataFrame, model: str, told: str, variant: int) -> Iterator[Curve]:
    """One model and variant in one panel: its runs thin, their median bold."""
    look, dashes = look_of(model), DASHES[variant % len(DASHES)]
    runs = rows.filter(pl.col("curve") == "run")
    for (seed,), run in runs.group_by("seed", maintain_order=True):
        (line,) = axis.plot(run["at"], run["value"], dashes, color=look.colour)
        line.set(linewidth=0.7, alpha=opacity(runs["seed"].n_unique()))
        yield Curve(line, look.label, seed, told, run)
    middle = rows.filter(pl.col("curve") == "median")
    first = MODELS.index(model) / len(MODELS) if model in MODELS else 0.0
    (line,) = axis.plot(middle["at"], middle["value"], dashes, color=look.colour, linewidth=1.6)
    line.set(marker=look.marker, markersize=4)
    line.set_markerfacecolor("white" if variant else look.colour)
    line.set_markevery((0.12 * first, 0.12))  # apart, so that curves on one another all show
    asked = runs.group_by("at").agg(pl.col("^asked(_apart)?$").max())
    points = middle.drop(asked.columns[1:]).join(asked, on="at", how="left", maintain_order="left")
    yield Curve(line, look.label, None, told, points)


def _tried(axis: Axes, tried: pl.DataFrame, model: str) -> Iterator[Curve]:
    """One model's rates in one panel: a mark a run, a line through the medians."""
    look, points = look_of(model), tried.rename({"rate": "at", "validation": "value"})
    middle = points.group_by("at", maintain_order=True).agg(pl.col("value").median())
    (line,) = axis.plot(middle["at"], middle["value"], color=look.colour, linewidth=1.0)
    yield Curve(line, look.label, None, "", middle)
    for run in points.iter_slices(1):
        (mark,) = axis.plot(run["at"], run["value"], look.marker, color=look.colour)
        mark.set_markersize(8 if run["chosen"][0] else 4)
        mark.set_markerfacecolor(look.colour if run["chosen"][0] else "white")
        seed = run["seed"][0] if "seed" in run.columns else 0
        yield Curve(mark, look.label, seed, "", run)


def _level(axis: Axes, rows: pl.DataFrame) -> None:
    for chance in rows["chance"].unique().sort():
        axis.axhline(chance, color="0.45", linewidth=0.9, linestyle=":", zorder=0)
