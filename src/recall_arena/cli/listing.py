"""Runs as a table for people: what describes them, what they reached, filtered and sorted."""

import json
from typing import Any

import polars as pl

from recall_arena.cli.where import column, where
from recall_arena.frame import runs_of
from recall_arena.index import Contents

BRIEF = ("model", "d", "rate", "seed", "steps", "ended_by", "validation", "accuracy")
"""What a list shows of every run, beside its address and its task's own fields."""

LARGEST = 2**63


def listed(
    contents: Contents, condition: str = "", sort: str = "address", *, descending: bool = False
) -> pl.DataFrame:
    """A row a run that meets a condition: the columns of `runs_of` and every field of the run.

    A field is called as in the run's JSON, task.queries or schedule.rate; `accuracy` is the test
    accuracy at L.  Runs without a value in the column to sort by come last.  Raises Mistake for a
    condition or a column that there cannot be.
    """
    judged = runs_of(contents.frame).with_columns(accuracy=pl.col("at_L"))
    fields = [_flat(json.loads(text)) for text in contents.table["run"]]
    names = sorted({name for row in fields for name in row} - set(judged.columns))
    described = contents.table.select("address").with_columns(
        _column(name, [row.get(name) for row in fields]) for name in names
    )
    table = judged.join(described, on="address", how="left").sort("address")
    chosen = where(table, condition) if condition else table
    by = column(sort, table.columns)
    return chosen.sort(by, descending=descending, nulls_last=True, maintain_order=True)


def brief(table: pl.DataFrame) -> pl.DataFrame:
    """The few columns of a listed table that a list shows; fields that no task here has are out.

    The kinds of tasks are shown where there are several.
    """
    kinds = table["task.kind"].n_unique() if "task.kind" in table.columns else 0
    hidden = ("task.vocabulary", *(["task.kind"] if kinds < 2 else []))
    task = [name for name in table.columns if name.startswith("task.") and name not in hidden]
    return table.select("address", *BRIEF[:2], *task, *BRIEF[2:])


def _flat(run: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for part, fields in run.items():
        if isinstance(fields, dict):
            flat |= {f"{part}.{name}": value for name, value in fields.items()}
    return flat


def _column(name: str, values: list[Any]) -> pl.Series:
    """The values as whole numbers, numbers, truth values or text, whichever holds all of them."""
    kinds = {type(value) for value in values if value is not None}
    fits = all(abs(value) < LARGEST for value in values if isinstance(value, int))
    if kinds == {bool}:
        return pl.Series(name, values, dtype=pl.Boolean)
    if kinds == {int} and fits:
        return pl.Series(name, values, dtype=pl.Int64)
    if kinds and kinds <= {int, float} and fits:
        return pl.Series(name, [None if v is None else float(v) for v in values], dtype=pl.Float64)
    return pl.Series(name, [None if v is None else _text(v) for v in values], dtype=pl.String)


def _text(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return ",".join(value)
    return value if isinstance(value, str) else json.dumps(value)
