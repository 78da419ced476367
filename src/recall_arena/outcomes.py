"""What each run came to: a row a run, with the accuracies and iterations that it is judged by."""

import polars as pl

from recall_arena.frame import RUN

ACCURACY = pl.col("correct") / pl.col("asked")
"""The share of right answers in a row of kind "check" or "test", in 0..1."""

APART = pl.col("correct_apart") / pl.col("asked_apart")
"""The same among the sequences whose value is not the query, null for a task without queries."""

BY_QUERY = (pl.col("correct_by_query") / pl.col("asked_by_query")).list.eval(
    pl.element().fill_nan(None)
)
"""The same for each query: a list, null for a query that was not asked for."""

KNOWN = BY_QUERY.list.eval(pl.element() >= 0.9).list.mean()
"""The share of queries of which at least 90 % were answered right."""


FELL_BACK = (pl.col("peak") >= 0.9) & (pl.col("at_L") < 0.5)
"""Runs that had 90 % validation accuracy, and end far below it."""


def runs_of(frame: pl.DataFrame) -> pl.DataFrame:
    """A row a run: the frame's columns that describe runs, and what each run is judged by.

    at_L, apart_L       test accuracy at L: of all sequences, and of those whose value is not the
                        query (null if L was not tested)
    below, apart_below  the same over the lengths below L
    beyond              the same over the lengths from L + 1
    apart_beyond
    at_3L               test accuracy at 3L
    validation, peak    accuracy of the last check, and the highest of any
    steps_50 _90 _99    iterations to the first check with that validation accuracy, or null
    in_decay            whether 99 % was first reached while the rate decayed
    told_apart          over the checks on the way up, with 20 to 90 % of all answers right, the
                        mean share of queries that are known (at least 80 % right) or not (at most
                        30 %); null if no check lay there
    """

    def test(where: pl.Expr, apart: str = "") -> pl.Expr:
        right, asked = (pl.col(name + apart).filter(where).sum() for name in ("correct", "asked"))
        return pl.when(asked > 0).then(right / asked)

    def first(accuracy: float) -> pl.Expr:
        return pl.col("at").filter(is_check & (accuracy <= ACCURACY)).min()

    is_test, is_check = pl.col("kind") == "test", pl.col("kind") == "check"
    at, trained = pl.col("at"), pl.col("L")
    certain = BY_QUERY.list.eval((pl.element() >= 0.8) | (pl.element() <= 0.3)).list.mean()
    frame = frame.sort("address", "kind", "at").with_columns(certain=certain)
    judged = frame.group_by("address").agg(
        at_L=test(is_test & (at == trained)),
        apart_L=test(is_test & (at == trained), "_apart"),
        below=test(is_test & (at < trained)),
        apart_below=test(is_test & (at < trained), "_apart"),
        beyond=test(is_test & (at > trained)),
        apart_beyond=test(is_test & (at > trained), "_apart"),
        at_3L=test(is_test & (at == 3 * trained)),
        validation=ACCURACY.filter(is_check).last(),
        peak=ACCURACY.filter(is_check).max(),
        steps_50=first(0.5),
        steps_90=first(0.9),
        steps_99=first(0.99),
        told_apart=pl.col("certain").filter(is_check & ACCURACY.is_between(0.2, 0.9)).mean(),
    )
    described = frame.filter(pl.col("kind") == "run").select(*RUN)
    late = pl.col("steps_99") > pl.col("budget") * (1 - pl.col("decay"))
    return described.join(judged, on="address").with_columns(in_decay=late).sort("address")
