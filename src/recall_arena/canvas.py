"""What figures share: panels, a legend, axes of accuracy, files that are the same each time."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import polars as pl
from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter, PercentFormatter, StrMethodFormatter

from recall_arena import atomic
from recall_arena.wording import name_of_value
from recall_arena.zoo import ZOO, look_of

MODELS = list(ZOO)
DASHES: tuple[Literal["-", "--", "-.", ":"], ...] = ("-", "--", "-.", ":")
"""Line styles, by which the values of a variant are told apart."""

DPI = 160
CANVASES: dict[str, tuple[type[FigureCanvasBase], dict[str, None] | None]] = {
    ".svg": (FigureCanvasSVG, {"Date": None}),
    ".png": (FigureCanvasAgg, None),
    ".pdf": (FigureCanvasPdf, {"CreationDate": None}),
}
"""What prints each format of a figure, and the metadata without which bytes would vary."""

Group = tuple[tuple[Any, ...], pl.DataFrame]


def groups(rows: pl.DataFrame, columns: Sequence[str]) -> Iterator[Group]:
    """Rows by the values of columns, in their order; models in that of `zoo.py`, nulls last."""

    def place(value: Any) -> tuple[int, Any]:
        if value is None:
            return len(MODELS) + 1, 0
        return (MODELS.index(value) if value in MODELS else len(MODELS), value)

    yield from sorted(rows.group_by(columns), key=lambda group: [place(v) for v in group[0]])


def panels(
    rows: pl.DataFrame, columns: Sequence[str], *, height: float | None = None
) -> tuple[Figure, list[tuple[Axes, pl.DataFrame]]]:
    """A titled panel for each value of the columns, at most three in a row, and its rows."""
    found = list(groups(rows, columns))
    across = max(1, min(len(found), 3))
    down = max(1, -(-len(found) // across))
    tall = height or (4.2 if len(found) <= 1 else 3.2 if down == 1 else 2.8)
    wide = 6.6 if across == 1 else 3.6 * across + 0.4
    figure = Figure(figsize=(min(wide, 11.0), tall * down), layout="constrained")
    axes = list(figure.subplots(down, across, squeeze=False).flat)
    for axis in axes[len(found) :]:
        axis.remove()
    for axis, (key, _) in zip(axes, found, strict=False):
        title = ", ".join(name_of_value(*pair) for pair in zip(columns, key, strict=True))
        axis.set_title(title, fontsize=9, y=1.0)  # nothing above moves it, so none is looked for
    return figure, [(axis, own) for axis, (_, own) in zip(axes, found, strict=False)]


def legend(
    figure: Figure, data: pl.DataFrame, variant: str | None = None, *, models: bool = True
) -> None:
    """One legend under all panels: models, the variants' dashes, the floor and chance."""
    handles = []
    for (model,), _ in groups(data, ["model"]) if models else ():
        look = look_of(model)
        handles.append(Line2D([], [], color=look.colour, marker=look.marker, label=look.label))
    for index, value in enumerate([] if variant is None else sorted(data[variant].unique())):
        handle = Line2D([], [], color="0.2", marker="o", linestyle=DASHES[index % len(DASHES)])
        handle.set(label=name_of_value(str(variant), value))
        handle.set_markerfacecolor("white" if index else "0.2")
        handles.append(handle)
    if "floor" in data.columns and data["floor"].count():
        label = "a reader that ignores order"
        handles.append(Line2D([], [], color="0.45", linestyle="-.", label=label))
    if "chance" in data.columns:
        handles.append(Line2D([], [], color="0.45", linestyle=":", label="chance"))
    place_legend(figure, handles)


def opacity(runs: int) -> float:
    """Of a run's thin line: the more there are, the fainter, so that their median is seen."""
    return max(0.25, 0.7 * min(1.0, 6 / max(1, runs)))


def place_legend(figure: Figure, handles: Sequence[Line2D]) -> None:
    """One legend under all panels."""
    for handle in handles:
        handle.set_markersize(4)
    columns = 3 if figure.get_figwidth() < 10 else 5
    place: Literal["outside lower center"] = "outside lower center"
    figure.legend(handles=handles, loc=place, ncols=columns, frameon=False, fontsize=8)


def plain_axis(axis: Axes, what: str, against: str) -> None:
    """A grid; the name of the quantity beside the first panel of a row."""
    axis.grid(visible=True, color="0.92", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8)
    axis.set_xlabel(against)
    place = axis.get_subplotspec()
    if place is not None and place.is_first_col():
        axis.set_ylabel(what)


def accuracy_axis(axis: Axes, what: str, against: str) -> None:
    """The same from 0 to 100 % upwards."""
    axis.set_ylim(-0.02, 1.04)
    axis.yaxis.set_major_formatter(PercentFormatter(1.0))
    plain_axis(axis, what, against)


def iterations_axis(axis: Axes) -> None:
    """Iterations on a logarithmic scale."""
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axis.xaxis.set_minor_formatter(NullFormatter())


def save(figure: Figure, data: pl.DataFrame, stem: Path) -> None:
    """Write stem.svg, .pdf, .png and the numbers as .csv; the same bytes each time."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    for suffix in CANVASES:
        write(figure, stem.with_suffix(suffix))
    atomic.write(stem.with_suffix(".csv"), data.write_csv().encode(), replace=True)


def write(figure: Figure, path: Path) -> None:
    """Write one file, of the format that its name ends in, whole; the same bytes each time.

    The canvas prints itself, since `savefig` draws each figure twice.
    """
    canvas, metadata = CANVASES[path.suffix]
    content = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "recall-arena", "svg.fonttype": "none"}):
        figure.set_dpi(DPI)
        _lay_out(figure)
        getattr(canvas(figure), f"print_{path.suffix[1:]}")(content, metadata=metadata)
    atomic.write(path, content.getvalue(), replace=True)


def _lay_out(figure: Figure) -> None:
    """Place panels and the names of their axes, once: all formats keep what is found.

    A drawing would else measure every tick's label again to place those names.
    """
    engine = figure.get_layout_engine()
    if not figure.axes or not isinstance(engine, ConstrainedLayoutEngine):
        return
    FigureCanvasAgg(figure)  # measures text
    engine.execute(figure)
    figure.set_layout_engine("none")
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            axis.get_tightbbox()  # places the name, in pixels
            place = axis.label.get_transform().transform(axis.label.get_position())
            axis.set_label_coords(*axes.transAxes.inverted().transform(place))
