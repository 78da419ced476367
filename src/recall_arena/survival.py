"""How many runs have reached an accuracy by when, where some were ended before they did."""

from collections.abc import Sequence

import polars as pl

from recall_arena.curves import CURVE

SCHEMA = {"at": pl.Int64, "reached": pl.Float64, "left": pl.Int64}


def kaplan_meier(reached: Sequence[int | None], ended: Sequence[int]) -> pl.DataFrame:
    """The estimated share of runs that have reached it by each iteration at which one did.

    1 - the estimator of Kaplan and Meier (1958): a run that had not when it ended says nothing of
    later iterations.

    reached  when each run did, None for never
    ended    when each run ended

    Columns: at; reached, the share; left, the runs that had neither reached it nor ended before.
    """
    pairs = zip(reached, ended, strict=True)
    times = [(at is None, end if at is None else at) for at, end in pairs]
    rows, survive = [], 1.0
    for at in sorted({time for censored, time in times if not censored}):
        left = sum(time >= at for _, time in times)
        survive *= 1 - sum(time == at and not censored for censored, time in times) / left
        rows.append((at, 1 - survive, left))
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def restricted_mean(curve: pl.DataFrame, until: int) -> float:
    """The mean number of iterations to reach it, none counted beyond `until`.

    The area under the share of runs that have not, from a curve of `kaplan_meier`.
    """
    begins = [0, *curve["at"].to_list()]
    waiting = [1.0, *(1 - curve["reached"]).to_list()]
    ends = [*begins[1:], until]
    return sum(
        share * max(0, min(end, until) - begin)
        for begin, end, share in zip(begins, ends, waiting, strict=True)
    )


def reached_by(runs: pl.DataFrame, column: str) -> pl.DataFrame:
    """The curve of each setting's runs, from a table of `outcomes.runs_of`.

    `column` has the iterations to an accuracy, null for never.  The columns of `curves.CURVE` and
    of `kaplan_meier`; `runs`, how many there are; `mean`, restricted to their budget.  Each curve
    begins at the first check with nothing and goes on to the budget.
    """
    kinds = {name: runs.schema[name] for name in CURVE}
    empty = SCHEMA | kinds | {"runs": pl.Int32, "mean": pl.Float64}
    tables = [pl.DataFrame(schema=empty)]
    for keys, own in runs.group_by(CURVE, maintain_order=True):
        curve = kaplan_meier(own[column].to_list(), own["steps"].to_list())
        budget = max(own["budget"])
        ends = pl.DataFrame(
            [(min(own["every"]), 0.0, own.height), (budget, None, 0)], schema=SCHEMA, orient="row"
        )
        whole = pl.concat([ends, curve]).sort("at", "left", descending=[False, True])
        tables.append(
            whole.with_columns(
                pl.col("reached").forward_fill(),
                *(
                    pl.lit(key, kinds[name]).alias(name)
                    for name, key in zip(CURVE, keys, strict=True)
                ),
                runs=pl.lit(own.height, pl.Int32),
                mean=pl.lit(float(restricted_mean(curve, budget))),
            )
        )
    return pl.concat(tables)
