"""Which trial of a search did best: one rule, for the assignment's rates and anybody's sweep.

The one that was solved with the most seeds, then in the fewest iterations, else the one that is
the most accurate on validation sequences.
One that diverged is never chosen; a choice at the edge of its grid may not be the best there is.
"""

from collections.abc import Sequence

import polars as pl


def ranked(tried: pl.DataFrame, ties: Sequence[str]) -> pl.DataFrame:
    """The points that may be chosen, the best first; equal ones by the columns `ties`."""
    return tried.filter(pl.col("ended_by") != "diverged").sort(
        *("solved", "solved_at", "validation", *ties),
        descending=[True, False, True, *(False for _ in ties)],
        nulls_last=True,
    )


def points(trials: pl.DataFrame, varied: Sequence[str], seeds: int) -> pl.DataFrame:
    """A row for each point of a grid, over its runs that differ in nothing but the seed.

    trials  a row a run: the columns `varied`, address, ended_by, solved_at, validation, accuracy

    Columns: varied, runs, addresses; ended_by, "diverged" if any run did, "missing" if not all
    seeds are there, else those of the runs; solved, how many were; solved_at, the median, null if
    most were not; validation and accuracy, the means.
    """
    endings = pl.col("ended_by").unique().sort().str.join(", ")
    late = pl.col("solved_at").cast(pl.Float64).fill_null(float("inf")).median()
    return trials.group_by(varied, maintain_order=True).agg(
        runs=pl.len(),
        addresses=pl.col("address"),
        ended_by=pl.when(pl.col("ended_by").eq("diverged").any())
        .then(pl.lit("diverged"))
        .when(pl.len() < seeds)
        .then(pl.lit("missing"))
        .otherwise(endings),
        solved=pl.col("solved_at").count(),
        solved_at=pl.when(late.is_finite()).then(late),
        validation=pl.col("validation").mean(),
        accuracy=pl.col("accuracy").mean(),
    )


def chosen(tried: pl.DataFrame, varied: Sequence[str], per: Sequence[str]) -> pl.DataFrame:
    """The best of the points for each value of the columns `per`, or of all where there is none.

    A column `edge` names those of the others, numbers, that stand at an end of what was tried.
    """
    whole = ranked(tried.filter(pl.col("ended_by") != "missing"), varied)
    best = whole.unique(per, keep="first", maintain_order=True) if per else whole.head(1)
    free = [name for name in varied if name not in per and tried[name].dtype.is_numeric()]
    ends = {name: (tried[name].min(), tried[name].max()) for name in free}
    edges = [
        [name for name, (low, high) in ends.items() if low != high and row[name] in (low, high)]
        for row in best.iter_rows(named=True)
    ]
    return best.with_columns(edge=pl.Series(edges, dtype=pl.List(pl.String)))
