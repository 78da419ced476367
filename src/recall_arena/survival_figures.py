"""How many runs have reached an accuracy by when, drawn."""

from collections.abc import Sequence

import polars as pl

from recall_arena.canvas import accuracy_axis, groups, iterations_axis, legend, panels
from recall_arena.figures import Drawing
from recall_arena.outcomes import runs_of
from recall_arena.survival import reached_by
from recall_arena.wording import NO_RUN, iterations, name_of_value, seeds, settings, values
from recall_arena.zoo import look_of


def reached(frame: pl.DataFrame, what: str, panel: Sequence[str]) -> Drawing:
    """The share of runs that have reached 99 % validation accuracy, against iterations.

    `panel` and `what` as in `figures`; a panel and model make one curve.
    """
    runs = runs_of(frame)
    data = reached_by(runs, "steps_99")
    figure, axes = panels(data, panel)
    for axis, rows in axes:
        for (model,), own in groups(rows, ["model"]):
            look, own = look_of(model), own.sort("at", "reached")
            (line,) = axis.step(own["at"], own["reached"], where="post", color=look.colour)
            line.set(marker=look.marker, markersize=4, linewidth=1.4)
        accuracy_axis(axis, "runs that have reached it", "iterations")
        iterations_axis(axis)
    legend(figure, data)
    if runs.is_empty():
        return Drawing(figure, data, NO_RUN, ())
    checks = frame.filter(pl.col("kind") == "check")
    caption = (
        f"{what}: the share of runs (Kaplan and Meier) that have reached a validation accuracy of "
        f"99 % on one batch of n = {values(checks, 'asked')} sequences, against iterations. "
        f"{settings(runs)}; {seeds(runs)} a curve. Mean iterations, none counted beyond the budget "
        f"of {values(runs, 'budget')}: {_means(data, panel)}."
    )
    return Drawing(figure, data, caption, ())


def _means(data: pl.DataFrame, panel: Sequence[str]) -> str:
    """Each model's mean, by panel."""
    parts = []
    for key, own in groups(data, panel):
        told = ", ".join(name_of_value(*pair) for pair in zip(panel, key, strict=True))
        models = (
            f"{look_of(model).label} {iterations(curve['mean'][0])}"
            for (model,), curve in groups(own, ["model"])
        )
        parts.append(f"{told}: {', '.join(models)}")
    return "; ".join(parts)
