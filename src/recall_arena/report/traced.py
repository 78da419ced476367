"""Curves in a figure's SVG as what they are: whose, and through which points exactly.

A curve's path is written in whole numbers of its own: upwards right answers, sidewards tokens or,
on a logarithmic axis, hundredths of a point; `transform` puts it in its place.  So a reader's
script finds the very numbers that are drawn, and a point takes a few bytes.  `figures.js` reads:

    a figure  data-x and data-y (what is drawn against what)
    a panel   data-title, data-scale (two positions sidewards and their values, "log" if it is so),
              data-at (the values that its points have)
    a curve   data-model, data-seed (none for a median), data-variant, data-per (what y is out of),
              data-n (sequences, if that is one number)
    in it     a path of class "apart", if there is one: v != q alone, with data-n at each point
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from itertools import pairwise

import numpy as np
import polars as pl
from jaxtyping import Float, Int
from matplotlib.axes import Axes

from recall_arena.figures import Curve, Drawing

SHARE = 10_000
"""What values are out of that are no counts."""

FINE = 100
"""Into so many parts a point is divided along a logarithmic axis."""

PIXELS = 4 / 3
"""Of a point: widths of strokes are pixels where a path has a scale of its own."""

_PANEL = re.compile(
    r'<g id="axes_(\d+)">\s*<g id="patch_\d+">\s*'
    r'<path d="M (?P<left>\S+) (?P<bottom>\S+)\s*L (?P<right>\S+) \S+\s*L \S+ (?P<top>\S+)'
)
_CURVE = re.compile(
    r'<g id="curve-(\d+)">\s*(?:<path d="[^"]*"(?: clip-path="[^"]*")? style="([^"]*)"/>)?'
)

Values = Float[np.ndarray, " points"]
Whole = Int[np.ndarray, " points"]


class Panel:
    """Where a panel's values are in the figure, in points from its left and its top."""

    def __init__(self, axis: Axes, left: float, bottom: float, right: float, top: float) -> None:
        (first, last), (low, high) = axis.get_xlim(), axis.get_ylim()
        self.log = axis.get_xscale() == "log"
        self.title = axis.get_title()
        self.ends = (left, first, right, last)
        self.up = (top - bottom) / (high - low)
        self.bottom = bottom - low * self.up

    def sidewards(self, at: Values) -> Values:
        """Positions of values."""
        left, first, right, last = self.ends
        if self.log:
            at, first, last = np.log(at), np.log(first), np.log(last)
        return left + (right - left) * (at - first) / (last - first)

    def told(self, at: Sequence[float | int]) -> str:
        """Its attributes, for points at these values."""
        scale = " ".join(f"{end:.9g}" for end in self.ends) + " log" * self.log
        return f' data-title="{escape(self.title)}" data-scale="{scale}" data-at="{_listed(at)}"'

    def path(self, at: Values, value: Values, per: int, attributes: str) -> str:
        """The path through values out of `per`."""
        scale, offset = (1 / FINE, 0.0) if self.log else self._unit()
        x = np.rint(FINE * self.sidewards(at) if self.log else at).astype(int)
        y = np.rint(per * value).astype(int)
        place = f"{scale:.9g} 0 0 {self.up / per:.7g} {offset:.9g} {self.bottom:.7g}"
        return f'<path {attributes} transform="matrix({place})" d="{path_data(x, y)}"/>'

    def _unit(self) -> tuple[float, float]:
        zero, one = self.sidewards(np.array([0.0, 1.0]))
        return one - zero, zero


def traced(svg: str, drawing: Drawing, spacing: int) -> str:
    """The SVG of a drawing, as its file has it, with its curves and panels as said above.

    spacing  along a logarithmic axis each run goes through the lowest and the highest of its
             points in so many points of width
    """
    axes = drawing.figure.axes
    boxes = {int(found[1]): found.groupdict() for found in _PANEL.finditer(svg)}
    panels: dict[object, Panel] = {
        axes[number - 1]: Panel(axes[number - 1], **{k: float(v) for k, v in box.items()})
        for number, box in boxes.items()
    }

    def panel(found: re.Match[str]) -> str:
        axis = axes[int(found[1]) - 1]
        at = sorted(_values_of(drawing, axis))
        told = panels[axis].told(at) if at else ""
        return found[0].replace('">', f'"{told}>', 1)

    def curve(found: re.Match[str]) -> str:
        own = drawing.curves[int(found[1])]
        return "\n".join(_curve(own, panels[own.line.axes], found[2] or "", spacing))

    against, what = _name(a.get_xlabel() for a in axes), _name(a.get_ylabel() for a in axes)
    told = f'<svg data-x="{against}" data-y="{what}" '
    return _CURVE.sub(curve, _PANEL.sub(panel, svg)).replace("<svg ", told, 1)


def path_data(x: Whole, y: Whole) -> str:
    """SVG's path data through these points, in as few bytes as relative steps take."""
    said, command = [f"M{x[0]} {y[0]}"], ""
    for right, down in zip(np.diff(x).tolist(), np.diff(y).tolist(), strict=True):
        now = "l" if down else "h"
        begin = now if now != command or right < 0 else " "
        said.append(f"{begin}{right}" + (f" {down}" if down > 0 else f"{down}" if down else ""))
        command = now
    return "".join(said)


def _curve(curve: Curve, panel: Panel, style: str, spacing: int) -> Iterator[str]:
    """A curve's group up to its markers: its path, and that of v != q alone."""
    points = curve.points.drop_nulls("value")
    per, asked = _out_of(points, curve.seed is None)
    kind = "" if curve.seed is None else f' data-seed="{curve.seed}"'
    variant = f' data-variant="{escape(curve.variant)}"' if curve.variant else ""
    number = f' data-n="{asked}"' if asked else ""
    yield (
        f'<g id="{curve.line.get_gid()}" class="curve" data-model="{escape(curve.model)}"{kind}'
        f'{variant} data-per="{per}"{number}>'
    )
    if points.is_empty():
        return
    if panel.log and curve.seed is not None:
        points = thinned(points, panel, spacing)
    look = f'style="{_in_pixels(style)}"' if style else ""
    yield panel.path(_floats(points["at"]), _floats(points["value"]), per, look)
    if curve.seed is None and points.get_column("apart", default=pl.Series([None])).count():
        own = points.drop_nulls("apart")
        look += f' class="apart" data-per="{SHARE}" data-n="{_listed(own["asked_apart"])}"'
        yield panel.path(_floats(own["at"]), _floats(own["apart"]), SHARE, look)


def thinned(points: pl.DataFrame, panel: Panel, spacing: int) -> pl.DataFrame:
    """The first point and the last, and the lowest and highest of every `spacing` of width."""
    column = np.floor(panel.sidewards(_floats(points["at"])) / spacing)
    rows = points.with_row_index("place").with_columns(column=pl.Series(column))
    ordered = pl.col("place").sort_by("value")
    ends = rows.group_by("column").agg(ordered.first().alias("low"), ordered.last().alias("high"))
    kept = {0, points.height - 1, *ends["low"], *ends["high"]}
    return points[sorted(kept)]


def _out_of(points: pl.DataFrame, median: bool) -> tuple[int, int | None]:
    """What values are whole numbers out of, and the number of sequences, if they are one number."""
    asked = points.get_column("asked", default=pl.Series([None])).unique().to_list()
    if len(asked) != 1 or asked[0] is None:
        return SHARE, None
    (number,) = asked
    per = number * (2 if median else 1)  # the median of an even number of runs has halves
    counts = per * _floats(points["value"])
    return (per if np.allclose(counts, np.rint(counts), atol=1e-6) else SHARE), number


def _values_of(drawing: Drawing, axis: Axes) -> set[float | int]:
    own = (curve.points for curve in drawing.curves if curve.line.axes is axis)
    return {at for points in own for at in points.drop_nulls("value")["at"]}


def _listed(values: Sequence[float | int] | pl.Series) -> str:
    """Numbers in a row: "2:192:1" if they are evenly apart, or one by one."""
    numbers = list(values)
    steps = {after - before for before, after in pairwise(numbers)}
    if len(numbers) > 2 and len(steps) == 1 and steps != {0}:
        return f"{numbers[0]}:{numbers[-1]}:{steps.pop()}"
    return " ".join(f"{number:.12g}" for number in numbers)


def _in_pixels(style: str) -> str:
    """Widths and dashes of a stroke that no scale changes."""
    measures = re.compile(r"(stroke-(?:width|dasharray|dashoffset): )([\d., ]+)")
    return measures.sub(
        lambda found: (
            found[1] + re.sub(r"[\d.]+", lambda n: f"{PIXELS * float(n[0]):.3g}", found[2])
        ),
        style,
    )


def _name(labels: Iterable[str]) -> str:
    """What an axis is called, without what explains it: "context length"."""
    return escape(next(filter(None, labels), "").partition(" (")[0])


def _floats(values: pl.Series) -> Values:
    return values.cast(pl.Float64).to_numpy()
