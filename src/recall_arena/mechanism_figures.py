"""Figures of what a trained model does inside, from the tables of `probes` and `mechanism`."""

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, tril_indices

from recall_arena.canvas import accuracy_axis, panels, plain_axis

BAR = "#0072b2"

BINS = 8
"""Into so many parts distances are gathered: a single one has few sequences."""


def distances(table: pl.DataFrame) -> tuple[Figure, pl.DataFrame]:
    """The share of right answers by the distance of the pair from the end."""
    found = table["distance"].to_list()
    width = -(-(max(found) - min(found) + 1) // BINS)
    data = (
        table.group_by(part=(pl.col("distance") - min(found)) // width)
        .agg(
            nearest=pl.col("distance").min(),
            furthest=pl.col("distance").max(),
            asked=pl.col("asked").sum(),
            correct=pl.col("correct").sum(),
        )
        .sort("part")
        .drop("part")
    )
    figure = Figure(figsize=(6.6, 3.2), layout="constrained")
    axis = figure.subplots()
    middle, wide = (data["nearest"] + data["furthest"]) / 2, data["furthest"] - data["nearest"] + 1
    axis.bar(middle, data["correct"] / data["asked"], width=wide - 0.2 * width, color=BAR)
    accuracy_axis(axis, "right answers", "distance of the pair from the end, in tokens")
    return figure, data


def by_offset(
    table: pl.DataFrame, value: str, what: str, delay: int
) -> tuple[Figure, pl.DataFrame]:
    """A column by offset from the query, a panel a layer; that of the final query on the right."""
    figure, drawn = panels(table, ["layer"], height=2.8)
    for axis, rows in drawn:
        _bars(axis, rows, "offset", value)
        axis.axvline(delay, color="0.45", linewidth=0.9, linestyle=":", zorder=0)
        place = axis.get_xaxis_transform()
        axis.text(delay, 1.0, "value", transform=place, fontsize=7, ha="center", va="bottom")
        plain_axis(axis, what, "offset from the query")
    return figure, table


def by_lag(table: pl.DataFrame) -> tuple[Figure, pl.DataFrame]:
    """The attention weight by how far back it looks, a panel a layer."""
    figure, drawn = panels(table, ["layer"], height=2.8)
    for axis, rows in drawn:
        _bars(axis, rows, "lag", "weight")
        plain_axis(axis, "attention weight", "tokens back")
    return figure, table


def _bars(axis: Axes, rows: pl.DataFrame, along: str, value: str) -> None:
    known = rows.drop_nulls(along)
    places: list[int] = known[along].to_list()
    axis.bar(places, known[value].to_list(), color=BAR)
    end = rows.filter(pl.col(along).is_null())[value].to_list()
    if end:
        last = max(places) + 2
        axis.bar([last], end, color=BAR)
        ticks = range(0, max(places) + 1, 2)
        axis.set_xticks([*ticks, last], [*map(str, ticks), "end"])


def attention_map(weights: Tensor, tokens: Tensor, layer: int) -> tuple[Figure, pl.DataFrame]:
    """The weights (length, length) of a sequence, means over heads: queries down, keys along."""
    figure = Figure(figsize=(6.6, 6.0), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(weights.numpy(), cmap="viridis", vmin=0.0, vmax=1.0)
    figure.colorbar(image, ax=axis, shrink=0.7, label="attention weight")
    axis.set_title(f"layer = {layer}", fontsize=9)
    ticks = range(0, len(tokens), max(1, len(tokens) // 16))
    names = [str(int(tokens[place])) for place in ticks]
    axis.set_xticks([*ticks], names, fontsize=7)
    axis.set_yticks([*ticks], names, fontsize=7)
    axis.set(xlabel="key: the token that is looked at", ylabel="query: the token that looks")
    query, key = tril_indices(len(tokens), len(tokens))
    data = pl.DataFrame(
        {"query": query.numpy(), "key": key.numpy(), "weight": weights[query, key].numpy()}
    )
    return figure, data
