"""Runs as a table for people: what describes them, what they reached, filtered and sorted."""

import json
from typing import Any

import polars as pl

from recall_arena.cli.where import column, where
from recall_arena.index import Contents

SHORT = {
    "model.width": "d",
    "schedule.rate": "rate",
    "schedule.steps": "budget",
    "schedule.context": "L",
    **{f"schedule.{name}": name for name in ("batch", "warmup", "decay", "clip", "optimizer")},
    **{f"schedule.{name}": name for name in ("weight_decay", "shortest")},
    "task.repeats": "repeats",
    **{f"checks.{name}": name for name in ("every", "running", "solved")},
}
"""Fields of a run that have a column of the frame, which is what a list calls them."""

SAID = ("model.layers", "model.vocabulary", "model.positions", "model.max_length")
"""Fields that the model's text says, or that follow from others."""

RESULTS = ("steps", "ended_by", "validation", "accuracy")

PARTS = ("task", "model", "schedule", "checks", "contexts")
LARGEST = 2**63


def listed(
    contents: Contents, condition: str = "", sort: str = "address", *, descending: bool = False
) -> pl.DataFrame:
    """A row a run that meets a condition: the columns of `runs_of` and every field of the run.

    A field is called as in the run's JSON, task.queries or schedule.rate; `accuracy` is the test
    accuracy at L.  Runs without a value in the column to sort by come last.  Raises Mistake for a
    condition or a column that there cannot be.
    """
    judged = contents.runs.with_columns(accuracy=pl.col("at_L"))
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
    """What a list shows of a listed table: models, the fields that tell runs apart, results."""
    fields = [name for name in table.columns if "." in name and name not in SAID]
    by_part = sorted(fields, key=lambda name: PARTS.index(name.partition(".")[0]))
    names = [*(SHORT.get(name, name) for name in by_part)]
    names += ["seed", "revision", "extends", "modules"]
    telling = [name for name in dict.fromkeys(names) if table[name].n_unique() > 1]
    return table.select("address", "model", *telling, *RESULTS)


def _flat(fields: dict[str, Any], begin: str = "") -> dict[str, Any]:
    """The values of nested fields, by names such as schedule.curriculum.kind."""
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, dict) and name != "extends":  # which has a column
            flat |= _flat(value, f"{begin}{name}.")
        elif begin:
            flat[begin + name] = value
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
