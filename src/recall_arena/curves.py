"""Curves: the points of a figure, made from a frame before anything is drawn."""

from collections.abc import Iterable

import polars as pl

from recall_arena.floor import order_free

CURVE = ("model", "d", "M", "tau", "K", "L", "repeats")
"""What the runs behind one median have in common."""


def curves(
    frame: pl.DataFrame,
    kind: str,
    value: pl.Expr,
    apart: pl.Expr | None = None,
    *,
    goes_on: bool = False,
) -> pl.DataFrame:
    """Every run's values along the rows of a kind, and at each position their median over runs.

    `goes_on` is for values along training: a run that stopped because it was solved goes on
    with its last value in the median, and one that diverged counts as 0 from there on.

    Columns: `curve` ("run" or "median"), those of CURVE, seed (null for a median), at, asked,
    correct, value; with `apart`, the value among the sequences whose value is not the query,
    asked_apart, correct_apart and apart; chance = 1 / K, and floor, the accuracy of the reader
    of `floor.py`, null for a task but associative recall.
    """
    found = {"value": value} | ({} if apart is None else {"apart": apart})
    counts = ["asked", "correct"]
    counts += [] if apart is None else ["asked_apart", "correct_apart"]
    rows = frame.filter(pl.col("kind") == kind).with_columns(**found)
    points = rows.select(pl.lit("run").alias("curve"), *CURVE, "seed", "at", *counts, *found).sort(
        *CURVE, "seed", "at"
    )
    runs = frame.filter(pl.col("kind") == "run")
    medians = [
        _medians(own, rows.join(own, on="address", how="semi"), found, goes_on).with_columns(
            pl.lit(key, own.schema[name]).alias(name) for name, key in zip(CURVE, keys, strict=True)
        )
        for keys, own in runs.group_by(CURVE, maintain_order=True)
    ]
    both = pl.concat([points, *medians], how="diagonal").sort("curve", *CURVE, "seed", "at")
    return _with_floor(both, kind)


def _medians(
    runs: pl.DataFrame, rows: pl.DataFrame, found: Iterable[str], goes_on: bool
) -> pl.DataFrame:
    """`median_of` each of the columns `found`; of the first alone if there is no other."""
    middle, *others = (
        median_of(runs, rows.with_columns(value=name), goes_on=goes_on).rename({"value": name})
        for name in found
    )
    for other in others:
        middle = middle.join(other.drop("curve"), on="at", how="left", maintain_order="left")
    return middle


def median_of(runs: pl.DataFrame, rows: pl.DataFrame, *, goes_on: bool) -> pl.DataFrame:
    """The median over these runs at every position that any of them has: at, value, `curve`.

    runs  address and ended_by; rows  address, at and value; `goes_on` as in `curves`
    """
    grid = rows.select("at").unique().join(runs.select("address", "ended_by"), how="cross")
    known = grid.join(rows.select("address", "at", "value"), on=["address", "at"], how="left")
    if goes_on:
        last = pl.col("value").forward_fill().over("address", order_by="at")
        end = pl.when(pl.col("ended_by") == "diverged").then(0.0).otherwise(last)
        known = known.with_columns(pl.coalesce("value", end))
    middle = known.group_by("at").agg(pl.col("value").median()).sort("at")
    return middle.with_columns(curve=pl.lit("median")).drop_nulls("value")


def _with_floor(points: pl.DataFrame, kind: str) -> pl.DataFrame:
    """Chance, and the order-free floor at the tested length or, along training, at L."""
    length = pl.col("at") if kind == "test" else pl.col("L")
    told = ["K", "length", "repeats"]
    points = points.with_columns(length=length)
    lengths = points.select(told).unique().drop_nulls()
    floors = [
        (K, at, repeats, order_free(K, at, repeats=repeats) if at > 1 else 1.0)
        for K, at, repeats in lengths.iter_rows()
    ]
    table = pl.DataFrame(floors, schema={**lengths.schema, "floor": pl.Float64}, orient="row")
    joined = points.join(table, on=told, how="left", maintain_order="left")
    return joined.drop("length").with_columns(chance=1 / pl.col("K"))
