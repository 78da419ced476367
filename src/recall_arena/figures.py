"""Figures as functions of a frame: every run thin, the median over runs bold.

A drawing's data are what is drawn, no more and no less: a row a point, `curve` telling the runs
from their median.  Runs that are missing, that diverged or that ended early are no error.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter, PercentFormatter, StrMethodFormatter

from recall_arena.curves import curves
from recall_arena.frame import ACCURACY, KNOWN
from recall_arena.wording import name_of_value
from recall_arena.zoo import ZOO, look_of

DASHES = ("-", "--", "-.", ":")
MODELS = list(ZOO)


@dataclass(frozen=True)
class Drawing:
    """A figure and the numbers in it."""

    figure: Figure
    data: pl.DataFrame


def by_context(frame: pl.DataFrame, panel: Sequence[str], variant: str | None = None) -> Drawing:
    """Test accuracy against context length: a panel for each value of the columns `panel`.

    A curve a model; `variant` is a column whose values are told apart by dashes.
    """
    drawing, axes = _draw(curves(frame, "test", ACCURACY), panel, variant, "test accuracy")
    for axis in axes:
        axis.set_xlabel("context length (tokens before the query)")
        for trained in drawing.data["L"].unique().sort():
            axis.axvline(trained, color="0.35", linewidth=0.9, linestyle="--", zorder=0)
            axis.text(trained, 0.0, f" L = {trained}", fontsize=7, color="0.35")
            axis.set_xticks(range(0, 3 * trained + 1, max(1, trained // 2)))
    return drawing


def by_iterations(frame: pl.DataFrame, panel: Sequence[str], variant: str | None = None) -> Drawing:
    """Validation accuracy at the training length against iterations, in the same panels."""
    data = curves(frame, "check", ACCURACY, goes_on=True)
    drawing, axes = _draw(data, panel, variant, "validation accuracy")
    _along_training(axes)
    return drawing


def known_queries(frame: pl.DataFrame, panel: Sequence[str]) -> Drawing:
    """The share of queries of which at least 90 % are answered right, against iterations."""
    data = curves(frame, "check", KNOWN, goes_on=True).drop("chance", "floor")
    drawing, axes = _draw(data, panel, None, "queries known")
    _along_training(axes)
    return drawing


def by_rate(trials: pl.DataFrame, panel: Sequence[str]) -> Drawing:
    """Validation accuracy at the end of a search run against its rate, and which was chosen.

    trials  model, d, M, tau, K, rate, validation, chosen and whatever else is known of them
    """
    titles = _titles(trials, panel)
    figure, axes = new_figure(len(titles), height=2.5)
    for axis, (title, rows) in zip(axes, titles, strict=True):
        axis.set_title(title, fontsize=9)
        for (model,), tried in _groups(rows, ["model"]):
            look, points = look_of(model), tried.sort("rate")
            axis.plot(points["rate"], points["validation"], color=look.colour, linewidth=1.0)
            for rate, accuracy, chosen in points.select("rate", "validation", "chosen").rows():
                size, inside = (8, look.colour) if chosen else (4, "white")
                axis.plot([rate], [accuracy], look.marker, color=look.colour, markersize=size,
                          markerfacecolor=inside)  # fmt: skip
        axis.axhline(rows.select((1 / pl.col("K")).max()).item(), color="0.55", linestyle=":")
        axis.set_xscale("log")
        rates = sorted(set(rows["rate"]))
        axis.set_xticks(rates, [f"{rate:g}" for rate in rates])
        axis.minorticks_off()
        _accuracy_axis(axis)
        axis.set_xlabel("learning rate")
    _label_rows(axes, "validation accuracy")
    _legend(figure, trials, None, models=True)
    return Drawing(figure, trials)


def new_figure(panels: int, *, height: float | None = None) -> tuple[Figure, list[Axes]]:
    """A figure of so many panels, in rows of at most three; none if there is nothing to draw."""
    columns = max(1, min(panels, 3))
    rows = max(1, -(-panels // columns))
    tall = height or (4.2 if panels <= 1 else 3.2 if rows == 1 else 2.8)
    wide = 6.6 if columns == 1 else min(3.6 * columns + 0.4, 11.0)
    figure = Figure(figsize=(wide, tall * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes[panels:]:
        axis.remove()
    return figure, axes[:panels]


def save(drawing: Drawing, stem: Path) -> None:
    """Write stem.svg, .pdf, .png and the numbers as .csv; the same bytes each time."""
    figure = drawing.figure
    stem.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": "recall-arena", "svg.fonttype": "path"}):
        figure.savefig(stem.with_suffix(".svg"), metadata={"Date": None})
    figure.set_layout_engine("none")  # laid out once; the other formats keep it
    figure.savefig(stem.with_suffix(".pdf"), metadata={"CreationDate": None})
    figure.savefig(stem.with_suffix(".png"), dpi=160)
    drawing.data.write_csv(stem.with_suffix(".csv"))


def _draw(
    data: pl.DataFrame, panel: Sequence[str], variant: str | None, what: str
) -> tuple[Drawing, list[Axes]]:
    titles = _titles(data, panel)
    figure, axes = new_figure(len(titles))
    values = [] if variant is None else sorted(data[variant].unique())
    for axis, (title, rows) in zip(axes, titles, strict=True):
        axis.set_title(title, fontsize=9)
        for (model, *rest), own in _groups(rows, ["model", *([variant] if variant else [])]):
            _lines(axis, own, model, values.index(rest[0]) if rest else 0)
        if "floor" in rows.columns:
            _floor(axis, rows)
        _accuracy_axis(axis)
    _label_rows(axes, what)
    _legend(figure, data, variant, models="model" not in panel)
    return Drawing(figure, data), axes


def _lines(axis: Axes, rows: pl.DataFrame, model: str, variant: int) -> None:
    look, dashes = look_of(model), DASHES[variant % len(DASHES)]
    runs = rows.filter(pl.col("curve") == "run")
    for _, run in runs.group_by("seed", maintain_order=True):
        axis.plot(run["at"], run["value"], dashes, color=look.colour, linewidth=0.5, alpha=0.6)
    middle = rows.filter(pl.col("curve") == "median")
    first = MODELS.index(model) / len(MODELS) if model in MODELS else 0.0
    axis.plot(
        *(middle["at"], middle["value"], dashes),
        color=look.colour,
        linewidth=1.6,
        marker=look.marker,
        markersize=4,
        markerfacecolor="white" if variant else look.colour,
        markevery=(0.12 * first, 0.12),  # apart, so that curves on one another all show
    )


def _floor(axis: Axes, rows: pl.DataFrame) -> None:
    level = rows.select("at", "floor").drop_nulls().unique().sort("at")
    axis.plot(level["at"], level["floor"], color="0.45", linewidth=0.9, linestyle="-.", zorder=0)
    for chance in rows["chance"].unique():
        axis.axhline(chance, color="0.55", linewidth=0.9, linestyle=":", zorder=0)


def _along_training(axes: Sequence[Axes]) -> None:
    for axis in axes:
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set_xlabel("iterations")


def _titles(rows: pl.DataFrame, panel: Sequence[str]) -> list[tuple[str, pl.DataFrame]]:
    return [
        (", ".join(name_of_value(*pair) for pair in zip(panel, key, strict=True)), group)
        for key, group in _groups(rows, panel)
    ]


def _groups(
    rows: pl.DataFrame, columns: Sequence[str]
) -> Iterator[tuple[tuple[Any, ...], pl.DataFrame]]:
    """Rows by the values of columns, in order; models in that of `zoo.py`."""

    def order(group: tuple[tuple[Any, ...], pl.DataFrame]) -> list[tuple[int, Any]]:
        return [(MODELS.index(v) if v in MODELS else len(MODELS), v) if isinstance(v, str)
                else (0, v) for v in group[0]]  # fmt: skip

    yield from sorted(rows.group_by(columns), key=order)


def _legend(figure: Figure, data: pl.DataFrame, variant: str | None, *, models: bool) -> None:
    """One legend under all panels: models, the variants' dashes, and the two levels."""
    handles: list[Line2D] = []

    def add(label: str, looks: Mapping[str, Any]) -> None:
        handles.append(Line2D([], [], label=label, markersize=4, **looks))

    for (model,), _ in _groups(data, ["model"]) if models else ():
        look = look_of(model)
        add(look.label, {"color": look.colour, "marker": look.marker})
    for index, value in enumerate([] if variant is None else sorted(data[variant].unique())):
        inside = "white" if index else "0.2"
        add(name_of_value(str(variant), value), {"color": "0.2", "linestyle": DASHES[index % 4],
            "marker": "o", "markerfacecolor": inside})  # fmt: skip
    if "floor" in data.columns:
        add("a reader that ignores order", {"color": "0.45", "linestyle": "-."})
    if "chance" in data.columns:
        add("chance", {"color": "0.55", "linestyle": ":"})
    columns = 3 if figure.get_figwidth() < 10 else 5
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False,
                  fontsize=8)  # fmt: skip


def _label_rows(axes: Sequence[Axes], what: str) -> None:
    for axis in axes:
        specification = axis.get_subplotspec()
        if specification is not None and specification.is_first_col():
            axis.set_ylabel(what)


def _accuracy_axis(axis: Axes) -> None:
    axis.set_ylim(-0.02, 1.04)
    axis.yaxis.set_major_formatter(PercentFormatter(1.0))
    axis.grid(visible=True, color="0.92", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8)
