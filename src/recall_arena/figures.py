"""Records to figures: each function draws on an axis and returns it, without torch."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter, PercentFormatter, StrMethodFormatter

from recall_arena.intervals import wilson
from recall_arena.records import Tally
from recall_arena.zoo import UNNAMED, ZOO, Named


@dataclass(frozen=True)
class Series:
    """A curve: counts along an axis, one tally a seed, and how to draw them.

    `variant` is added to the model's label, and `dashed` tells two variants of one model apart.
    """

    model: str
    tallies: tuple[Tally, ...]
    variant: str = ""
    dashed: bool = False

    @property
    def look(self) -> Named:
        return ZOO.get(self.model, UNNAMED)

    @property
    def label(self) -> str:
        name = self.look.label or self.model
        return f"{name}, {self.variant}" if self.variant else name


def new_figure(columns: int, rows: int = 1, *, height: float = 2.9) -> tuple[Figure, list[Axes]]:
    """A figure of `rows` x `columns` panels, and the panels row by row."""
    width = 6.6 if columns == 1 else min(3.6 * columns + 0.4, 11.0)
    figure = Figure(figsize=(width, height * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    return figure, [panel for row in panels for panel in row]


def accuracy_by_context(
    axis: Axes, series: Sequence[Series], *, trained: int, chance: float
) -> Axes:
    """Accuracy against context length; a line at the training length and one at chance.

    With one seed the band is the Wilson 95 % interval; with several, the line is their median
    and the band reaches from the worst seed to the best.
    """
    _plot_accuracy(axis, series, marks=9)
    axis.axvline(trained, color="0.35", linewidth=0.9, linestyle="--", zorder=0)
    axis.annotate(
        f"L = {trained}",
        (trained, 0.02),
        xycoords=("data", "axes fraction"),
        xytext=(3, 0),
        textcoords="offset points",
        fontsize=7,
        color="0.35",
    )
    _accuracy_axis(axis, chance)
    axis.set_xlabel("context length (tokens before the query)")
    return axis


def convergence(axis: Axes, series: Sequence[Series], *, chance: float) -> Axes:
    """Accuracy on held-out sequences against iterations: every seed thin, the median bold.

    A run that was solved and stopped keeps its last accuracy in the median.
    """
    for one in series:
        if len(one.tallies) > 1:
            for tally in one.tallies:
                axis.plot(
                    tally.at, tally.accuracy(), color=one.look.colour, linewidth=0.5, alpha=0.5
                )
        _line(axis, one, *_median_of(one.tallies), marks=6)
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    _accuracy_axis(axis, chance)
    axis.set_xlabel("iterations")
    return axis


def accuracy_by_query(axis: Axes, tally: Tally, *, model: str, chance: float) -> Axes:
    """Each query's accuracy along training, thin, and all queries' together, bold."""
    colour = ZOO.get(model, UNNAMED).colour
    for query in range(max(map(len, tally.total_by_query), default=0)):
        share = [
            right[query] / total[query]
            for right, total in zip(tally.correct_by_query, tally.total_by_query, strict=True)
        ]
        axis.plot(tally.at, share, color=colour, linewidth=0.6, alpha=0.45)
    axis.plot(tally.at, tally.accuracy(), color=colour, linewidth=1.8)
    _accuracy_axis(axis, chance)
    axis.set_xlabel("iterations")
    return axis


def rate_sensitivity(
    axis: Axes, tried: dict[str, list[tuple[float, float, bool]]], *, chance: float
) -> Axes:
    """Accuracy at the end of a search run against its rate; model -> [(rate, accuracy, chosen)]."""
    for model, points in tried.items():
        look = ZOO.get(model, UNNAMED)
        rates, accuracies = [p[0] for p in points], [p[1] for p in points]
        axis.plot(rates, accuracies, color=look.colour, linewidth=1.0, label=look.label or model)
        for rate, accuracy, chosen in points:
            axis.plot(
                *(rate, accuracy, look.marker),
                color=look.colour,
                markersize=8 if chosen else 4,
                markerfacecolor=look.colour if chosen else "white",
            )
    axis.set_xscale("log")
    rates = sorted({p[0] for points in tried.values() for p in points})
    axis.set_xticks(rates, [f"{rate:g}" for rate in rates])
    axis.minorticks_off()
    _accuracy_axis(axis, chance)
    axis.set_xlabel("learning rate")
    return axis


def share_legend(figure: Figure, panels: Sequence[Axes], *, columns: int = 3) -> None:
    """One legend under the figure for all its panels, each label once."""
    handles = {
        label: handle
        for panel in panels
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=8,
    )


def variant_legend(figure: Figure, variants: Sequence[tuple[str, bool]]) -> None:
    """A legend of line styles alone, where each panel is one model: (label, dashed or not)."""
    handles = [
        Line2D(
            *([], []),
            color="0.2",
            linestyle="--" if dashed else "-",
            marker="o",
            markersize=4,
            markerfacecolor="white" if dashed else "0.2",
        )
        for _, dashed in variants
    ]
    figure.legend(
        handles,
        [label for label, _ in variants],
        loc="outside lower center",
        ncols=len(variants),
        frameon=False,
        fontsize=8,
    )


def save(figure: Figure, data: pl.DataFrame, stem: Path) -> None:
    """Write stem.svg, .pdf, .png and the numbers behind them as .csv; the same bytes each time."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": "recall-arena", "svg.fonttype": "path"}):
        figure.savefig(stem.with_suffix(".svg"), metadata={"Date": None})
    figure.set_layout_engine("none")  # laid out once; the other formats keep it
    figure.savefig(stem.with_suffix(".pdf"), metadata={"CreationDate": None})
    figure.savefig(stem.with_suffix(".png"), dpi=160)
    data.write_csv(stem.with_suffix(".csv"))


def _plot_accuracy(axis: Axes, series: Sequence[Series], marks: int) -> None:
    for one in series:
        at, middle = _median_of(one.tallies)
        if len(one.tallies) == 1:
            tally = one.tallies[0]
            bounds = [wilson(*row) for row in zip(tally.correct, tally.total, strict=True)]
        else:
            by_position = zip(*(tally.accuracy() for tally in one.tallies), strict=True)
            bounds = [(min(shares), max(shares)) for shares in by_position]
        low, high = [bound[0] for bound in bounds], [bound[1] for bound in bounds]
        axis.fill_between(at, low, high, color=one.look.colour, alpha=0.18, linewidth=0)
        _line(axis, one, at, middle, marks)


def _median_of(tallies: Sequence[Tally]) -> tuple[list[int], list[float]]:
    """The median over the seeds at every position that any of them has."""
    at = sorted({position for tally in tallies for position in tally.at})
    shares = [dict(zip(tally.at, tally.accuracy(), strict=True)) for tally in tallies]
    last = [tally.accuracy()[-1] for tally in tallies]
    middle = [
        statistics.median(share.get(p, end) for share, end in zip(shares, last, strict=True))
        for p in at
    ]
    return at, middle


def _line(axis: Axes, one: Series, at: list[int], share: list[float], marks: int) -> None:
    stride = max(1, len(at) // marks)
    order = list(ZOO).index(one.model) if one.model in ZOO else 0
    first = order * stride // len(ZOO)  # so that the markers of curves on one another all show
    axis.plot(
        at,
        share,
        color=one.look.colour,
        marker=one.look.marker,
        markersize=4,
        markerfacecolor="white" if one.dashed else one.look.colour,
        markevery=(first, stride),
        linestyle="--" if one.dashed else "-",
        linewidth=1.5,
        label=one.label,
    )


def _accuracy_axis(axis: Axes, chance: float) -> None:
    axis.axhline(chance, color="0.55", linewidth=0.9, linestyle=":", zorder=0)
    axis.annotate(
        "chance",
        (1.0, chance),
        xycoords=("axes fraction", "data"),
        xytext=(-2, -2),
        textcoords="offset points",
        ha="right",
        va="top",
        fontsize=7,
        color="0.45",
    )
    axis.set_ylim(-0.02, 1.04)
    axis.yaxis.set_major_formatter(PercentFormatter(1.0))
    axis.grid(visible=True, color="0.92", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8)
