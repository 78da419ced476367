"""Every run a dot: one figure of all settings, task by task and model by model."""

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import fill

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from recall_arena.canvas import groups, place_legend, plain_axis
from recall_arena.claims import SETTING
from recall_arena.figures import Drawing
from recall_arena.wording import MEASURES, NO_RUN, differing, name_of_value, seeds, settings
from recall_arena.zoo import look_of

ROW = 0.19
"""Inches of height a setting."""

LETTERS = 36
"""Of an axis's name a line, so that two panels' names stand beside one another."""

SPREAD = 0.6
"""The share of a row's height over which its runs are spread, in the order of their seeds."""


@dataclass(frozen=True)
class Panel:
    """Runs and one of their accuracies.

    title    what stands over it
    runs     a table of `outcomes.runs_of`
    measure  a column, named in `wording.MEASURES`
    floor    what a reader that ignores order gets there, where that is one number
    marked   more runs, which rings are drawn around and which count in no median
    """

    title: str
    runs: pl.DataFrame
    measure: str
    floor: float | None = None
    marked: pl.DataFrame | None = None


def by_setting(panels: Sequence[Panel], what: str) -> Drawing:
    """A row a setting under the heading of its task, a dot a run, panels beside one another.

    Tasks stand in the order in which their first runs do.
    """
    data = pl.concat(
        own.select(
            *SETTING,
            "seed",
            panel=pl.lit(panel.title),
            accuracy=panel.measure,
            marked=pl.lit(own is panel.marked),
        )
        for panel in panels
        for own in (panel.runs, panel.marked)
        if own is not None
    ).drop_nulls("accuracy")
    rows = _rows(data)
    figure = Figure(figsize=(7.0, ROW * len(rows) + 1.2), layout="constrained")
    axes = list(figure.subplots(1, len(panels), sharey=True, squeeze=False).flat)
    for axis, panel in zip(axes, panels, strict=True):
        _draw(axis, panel, rows)
    _name_rows(axes[0], rows)
    floored = any(panel.floor is not None for panel in panels)
    _legend(figure, marked=data["marked"].any(), floored=floored)
    if data.is_empty():
        return Drawing(figure, data, NO_RUN, ())
    shown = ", ".join(dict.fromkeys(MEASURES[panel.measure] for panel in panels))
    asked = next((panel.runs for panel in panels if panel.runs.height), panels[0].runs)
    caption = (
        f"{what}: {shown}. {settings(asked)}. A dot a run, "
        f"{seeds(data.filter(~pl.col('marked')), 'panel')} a setting; a bar at their median."
    )
    if floored:
        caption += " Dash-dotted: a reader that ignores order, at L."
    return Drawing(figure, data, caption, ())


Row = tuple[str, str, pl.DataFrame | None]


def _rows(data: pl.DataFrame) -> list[Row]:
    """From the top: a task's heading, its models with their runs; the heading has none."""
    names = differing(data)
    rows: list[Row] = []
    for key, task in data.group_by(SETTING[1:], maintain_order=True):
        spelled = dict(zip(SETTING[1:], key, strict=True))
        rows.append((", ".join(name_of_value(name, spelled[name]) for name in names), "", None))
        for (model,), own in groups(task, ["model"]):
            rows.append((look_of(model).label, model, own))
    return rows


def _draw(axis: Axes, panel: Panel, rows: Sequence[Row]) -> None:
    for place, (_, model, own) in enumerate(rows):
        if own is not None:
            seen = own.filter(panel=panel.title).sort("seed")
            _dots(axis, seen.filter(~pl.col("marked"))["accuracy"], place, model)
            for value in seen.filter("marked")["accuracy"]:
                axis.plot(value, place, "o", color="black", markersize=7, markerfacecolor="none")
    if panel.floor is not None:
        axis.axvline(panel.floor, color="0.45", linewidth=0.9, linestyle="-.", zorder=0)
    plain_axis(axis, "", fill(MEASURES[panel.measure], LETTERS))
    axis.set_title(panel.title, fontsize=9, y=1.0)
    axis.tick_params(axis="y", length=0)
    axis.set_xlim(-0.03, 1.03)
    axis.xaxis.set_major_formatter(PercentFormatter(1.0))


def _legend(figure: Figure, *, marked: bool, floored: bool) -> None:
    run = Line2D([], [], color="0.2", marker="o", linestyle="", label="a run")
    middle = Line2D([], [], color="0.2", marker="|", linestyle="", label="median over runs")
    ring = Line2D([], [], color="black", marker="o", linestyle="", markerfacecolor="none")
    ring.set_label("a run made here")
    ignores = Line2D([], [], color="0.45", linestyle="-.", label="a reader that ignores order")
    place_legend(figure, [run, middle, *([ring] * marked), *([ignores] * floored)])


def _dots(axis: Axes, values: pl.Series, row: int, model: str) -> None:
    if values.is_empty():
        return
    colour = look_of(model).colour
    half = SPREAD / 2 if len(values) > 1 else 0.0
    places = np.linspace(row - half, row + half, len(values))
    axis.plot(values, places, "o", color=colour, markersize=2.6, alpha=0.75, markeredgewidth=0)
    middle = float(np.median(values))
    axis.plot(middle, row, "|", color=colour, markersize=11, markeredgewidth=1.6)


def _name_rows(axis: Axes, rows: Sequence[Row]) -> None:
    axis.set_ylim(len(rows) - 0.4, -0.8)
    axis.set_yticks(range(len(rows)), [name for name, *_ in rows])
    for label, (_, model, _) in zip(axis.get_yticklabels(), rows, strict=True):
        label.set_color(look_of(model).colour if model else "black")
        label.set_fontweight("normal" if model else "bold")
