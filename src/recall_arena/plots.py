"""A plot of any runs: any column against another, with colours, line styles and panels by others.

Runs that differ in nothing that is drawn are drawn thin, and their median bold.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from recall_arena.canvas import (
    DASHES,
    accuracy_axis,
    groups,
    iterations_axis,
    opacity,
    panels,
    place_legend,
    plain_axis,
)
from recall_arena.curves import median_of
from recall_arena.frame import COUNTS
from recall_arena.looks import looks_of
from recall_arena.outcomes import ACCURACY, APART, KNOWN
from recall_arena.wording import name_of_value
from recall_arena.zoo import Named

ALONG = {"context": "test", "iterations": "check"}
"""What a run has a curve along, and the kind of the frame's rows that it is made of."""

VALUES: dict[str, pl.Expr] = {
    "accuracy": ACCURACY,
    "accuracy_apart": APART,
    "known": KNOWN,
    "loss": pl.col("loss"),
}
"""What can be drawn along a curve."""

SHARES = frozenset(
    {"accuracy", "accuracy_apart", "known", "validation", "at_L", "apart_L"}
    | {"below", "beyond", "apart_below", "apart_beyond", "at_3L", "told_apart"}
)
"""Columns of values in 0..1, whose axis is in per cent."""

GUESSED = frozenset({"accuracy", "validation", "at_L"})
"""Those of them that chance, 1/K, is a level of."""

NEVER = ("steps_", "solved_at")
"""Columns of iterations whose null means never: it counts as infinite in a median, undrawn."""

WIDE = {"context": 200}
"""How many times apart the positive numbers of a logarithmic axis are, where not 20."""

STYLES = 2 * len(DASHES)
"""So many lines differ by their dashes and by whether their markers are filled."""

FEW = 8
"""Up to so many values of x are the ticks of its axis."""


@dataclass(frozen=True)
class Axes2D:
    """Which columns are drawn, by name; `style` may be None, and `panel` none at all."""

    x: str
    y: str
    colour: str
    style: str | None
    panel: tuple[str, ...]

    @property
    def telling(self) -> tuple[str, ...]:
        """The columns by which lines are told apart within a panel."""
        return (self.colour,) if self.style in (None, self.colour) else (self.colour, self.style)


def points_of(runs: pl.DataFrame, frame: pl.DataFrame, axes: Axes2D) -> pl.DataFrame:
    """The points to draw: the columns of `axes`, address, ended_by, K, L, `at` (x), `value` (y).

    runs   a row a run, with all columns that axes may have
    frame  their frame, of which curves are made
    """
    names = dict.fromkeys((*axes.panel, *axes.telling, "address", "ended_by", "K", "L"))
    if axes.x not in ALONG:
        never = pl.lit(float("inf") if axes.y.startswith(NEVER) else None, dtype=pl.Float64)
        points = runs.select(*names, at=axes.x, value=pl.col(axes.y).cast(pl.Float64))
        points = points.with_columns(pl.col("value").fill_null(never))
        return points.drop_nulls(["at", "value"]).sort("at")
    rows = frame.filter(pl.col("kind") == ALONG[axes.x])
    curve = rows.select(*COUNTS).select("address", "at", value=VALUES[axes.y])
    return runs.select(*names).join(curve, on="address").drop_nulls("value").sort("address", "at")


def plot(points: pl.DataFrame, axes: Axes2D) -> Figure:
    """The figure of some points.

    Raises ValueError for more values than line styles can tell apart.
    """
    figure, drawn = panels(points, axes.panel) if axes.panel else _one_panel(points)
    looks = looks_of(axes.colour, [key[0] for key, _ in groups(points, [axes.colour])])
    styles = [key[0] for key, _ in groups(points, [axes.style])] if axes.style else []
    if len(styles) > STYLES and axes.style != axes.colour:
        raise ValueError(
            f"{axes.style} has {len(styles)} values, and at most {STYLES} line styles can be told "
            "apart; give it colours, panels or files of its own"
        )
    for axis, rows in drawn:
        for key, own in groups(rows, axes.telling):
            index = styles.index(key[-1]) if styles else 0
            _lines(axis, own, looks[key[0]], index, axes)
        _finish(axis, rows, axes)
    place_legend(figure, [*_handles(looks, styles, axes), *_marks(points, axes)])
    return figure


def _one_panel(points: pl.DataFrame) -> tuple[Figure, list[tuple[Axes, pl.DataFrame]]]:
    figure, [(axis, _)] = panels(points.head(1), ["address"])
    axis.set_title("")
    return figure, [(axis, points)]


def _lines(axis: Axes, rows: pl.DataFrame, look: Named, style: int, axes: Axes2D) -> None:
    """One colour and style in one panel: its runs thin, their median bold."""
    dashes, filled = DASHES[style % len(DASHES)], look.colour if _is_filled(style) else "white"
    several = rows["address"].n_unique() > 1
    if axes.x in ALONG:
        runs = rows.group_by("address").agg(pl.col("ended_by").first())
        middle = median_of(runs, rows, goes_on=axes.x == "iterations" and axes.y != "loss")
        for _, run in rows.group_by("address", maintain_order=True) if several else ():
            (line,) = axis.plot(run["at"], run["value"], dashes, color=look.colour)
            line.set(linewidth=0.7, alpha=opacity(runs.height))
    else:
        middle = rows.group_by("at").agg(pl.col("value").median()).sort("at")
        if several:
            (dots,) = axis.plot(rows["at"], rows["value"], look.marker, color=look.colour)
            dots.set(markersize=3, alpha=0.5)
    (line,) = axis.plot(middle["at"], middle["value"], dashes, color=look.colour, linewidth=1.6)
    if not rows["at"].dtype.is_numeric():
        line.set_linestyle("none")
    line.set(marker=look.marker, markersize=5)
    line.set_markerfacecolor(filled)
    if axes.x in ALONG:
        line.set_markevery(max(1, middle.height // 8))


def _finish(axis: Axes, rows: pl.DataFrame, axes: Axes2D) -> None:
    """Names, scales, ticks, and the levels that curves are held against."""
    what, against = axes.y.replace("_", " "), _against(axes.x)
    (accuracy_axis if axes.y in SHARES else plain_axis)(axis, what, against)
    if axes.y not in SHARES and _wide(rows["value"], axes.y):
        axis.set_yscale("log")
    if axes.x == "iterations":
        iterations_axis(axis)
    elif rows["at"].dtype.is_numeric():
        if _wide(rows["at"], axes.x):
            axis.set_xscale("log")
        ticks = rows["at"].unique().sort().to_list()
        if len(ticks) <= FEW:
            axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axis.minorticks_off()
    else:
        axis.tick_params(axis="x", labelrotation=30)
    if axes.y in GUESSED:
        for tokens in rows["K"].drop_nulls().unique():
            axis.axhline(1 / tokens, color="0.45", linewidth=0.9, linestyle=":", zorder=0)
    if axes.x == "context":
        for trained in rows["L"].unique():
            axis.axvline(trained, color="0.35", linewidth=0.9, linestyle="--", zorder=0)


def _wide(numbers: pl.Series, name: str) -> bool:
    finite = numbers.filter(numbers.is_finite())
    low, high = (float(end or 0) for end in (finite.min(), finite.max()))  # type: ignore[arg-type]
    return low > 0 and high > WIDE.get(name, 20) * low


def _against(x: str) -> str:
    return "context length (tokens before the query)" if x == "context" else x.replace("_", " ")


def _is_filled(style: int) -> bool:
    """Whether the markers of a line style are: so twice as many as there are dashes differ."""
    return style == 0 or style > len(DASHES)


def _handles(looks: dict[Any, Named], styles: Sequence[Any], axes: Axes2D) -> Iterator[Line2D]:
    for look in looks.values():
        yield Line2D([], [], color=look.colour, marker=look.marker, label=look.label)
    if axes.style in (None, axes.colour):
        return
    for index, value in enumerate(styles):
        label = name_of_value(str(axes.style), value)
        line = Line2D([], [], color="0.2", marker="o", linestyle=DASHES[index % len(DASHES)])
        line.set(label=label)
        line.set_markerfacecolor("0.2" if _is_filled(index) else "white")
        yield line


def _marks(points: pl.DataFrame, axes: Axes2D) -> Iterator[Line2D]:
    if axes.y in GUESSED and points["K"].drop_nulls().len():
        yield Line2D([], [], color="0.45", linestyle=":", label="chance")
    if axes.x == "context":
        yield Line2D([], [], color="0.35", linestyle="--", label="the training length")
