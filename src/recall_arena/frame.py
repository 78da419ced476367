"""The frame: all records as one tidy table, from which figures, tables and claims are made.

A record has one row of kind "run", one of kind "check" for each validation and one of kind
"test" for each tested length, so that a run that diverged before its first check has one too.

    address                 text: the record's name
    task                    text: the kind of task
    model                   text: a name of `zoo.py`, or the layers, "mamba,attention-rope"
    recurrent               whether a layer carries a state of fixed size
    d K M tau L             integers: width, vocabulary, queries, delay, training context
                            (K, M and tau are null for a task that has none)
    distance                the greatest from the pair to the end; null if it stands anywhere
    repeats                 whether a value may be its query; null for a task but associative recall
    rate budget batch       the schedule: peak rate, most iterations, sequences an iteration,
    warmup decay clip       iterations of warm-up, share of the budget that decays, gradient norm
    optimizer weight_decay  "adamw" or "adam", and its weight decay
    shortest curriculum     the shortest training length, null if all are L; the kind
    every running solved    a check every so many iterations; the run is solved once `running`
                            checks in a row have an accuracy of `solved`
    tests                   how many lengths were tested
    seed revision           the run's seed, the revision of the code that ran it
    extends                 the address of the run that this one goes on from, or null
    steps ended_by          iterations taken; "solved", "budget" or "diverged"
    solved_at               the iteration of the first check that met the rule, or null
    parameters state        numbers trained; numbers of state at L
    seconds                 of training and testing
    kernels threads         what ran it, as far as the record tells
    versions machine
    modules                 those of other packages that task and mixers come from, or null
    kind at                 "run", "check" or "test"; iterations ("run", "check") or length ("test")
    asked correct           answers asked for, and right ones among them; null for "run"
    asked_apart             the same without the answers that are the query itself
    correct_apart
    asked_by_query          lists: the same for each query, in the order of the tokens (null for a
    correct_by_query        task whose answers are not each asked for by one last token)
    loss                    mean training loss since the check before; null but for "check"
"""

from collections.abc import Iterable
from itertools import chain
from typing import Any

import numpy as np
import polars as pl

from recall_arena.records import Record, Tally, address_of
from recall_arena.zoo import name_of, recurrent

RUN: dict[str, type[pl.DataType]] = {
    **dict.fromkeys(("address", "task", "model"), pl.String),
    "recurrent": pl.Boolean,
    **dict.fromkeys(("d", "K", "M", "tau", "L", "distance"), pl.Int64),
    "repeats": pl.Boolean,
    "rate": pl.Float64,
    **dict.fromkeys(("budget", "batch", "warmup"), pl.Int64),
    "decay": pl.Float64,
    "clip": pl.Float64,
    "optimizer": pl.String,
    "weight_decay": pl.Float64,
    "shortest": pl.Int64,
    "curriculum": pl.String,
    "every": pl.Int64,
    "running": pl.Int64,
    "solved": pl.Float64,
    **dict.fromkeys(("tests", "seed", "revision"), pl.Int64),
    "extends": pl.String,
    "steps": pl.Int64,
    "ended_by": pl.String,
    "solved_at": pl.Int64,
    "parameters": pl.Int64,
    "state": pl.Int64,
    "seconds": pl.Float64,
    **dict.fromkeys(("kernels", "threads", "versions", "machine", "modules"), pl.String),
}
LISTS = pl.List(pl.Int64)
_COUNTED: dict[str, pl.DataType | type[pl.DataType]] = {
    **dict.fromkeys(("asked", "correct", "asked_apart", "correct_apart"), pl.Int64),
    **dict.fromkeys(("asked_by_query", "correct_by_query"), LISTS),
}
COUNTS: dict[str, pl.DataType | type[pl.DataType]] = {
    "address": pl.String,
    "kind": pl.String,
    "at": pl.Int64,
    **_COUNTED,
    "loss": pl.Float64,
}


def frame_of(records: Iterable[Record]) -> pl.DataFrame:
    """The table of these records; their order does not matter, and none give an empty table."""
    once = list({record.address: record for record in records}.values())
    return assembled(facts_of(once), counts_of(once))


def facts_of(records: Iterable[Record]) -> pl.DataFrame:
    """A row a record: the frame's columns that describe runs."""
    return pl.DataFrame(list(map(_run, records)), schema=RUN, orient="row")


def counts_of(records: Iterable[Record]) -> pl.DataFrame:
    """The frame's other columns, each row beside its record's address."""
    columns: dict[str, list[Any]] = {name: [] for name in COUNTS}
    for record in records:
        outcome = record.outcome
        for kind, tally, losses in (
            ("check", outcome.checks, outcome.losses),
            ("run", None, []),
            ("test", outcome.contexts, []),
        ):
            at = [outcome.steps] if tally is None else tally.at
            columns["address"] += [record.address] * len(at)
            columns["kind"] += [kind] * len(at)
            columns["at"] += at
            for name, values in _counted(tally).items():
                columns[name] += values or [None] * len(at)
            columns["loss"] += losses or [None] * len(at)
    lists = {name: _lists(columns[name]) for name, kind in COUNTS.items() if kind == LISTS}
    return pl.DataFrame(columns | lists, schema=COUNTS)


def _lists(rows: list[list[int] | None]) -> pl.Series:
    """Rows of numbers as a column; several times as fast as polars makes it of the rows."""
    sizes = np.array([len(row or ()) for row in rows], dtype=np.int64)
    flat = np.fromiter(chain.from_iterable(filter(None, rows)), np.int64, sizes.sum())
    numbers = pl.DataFrame({"row": np.repeat(np.arange(len(rows)), sizes), "numbers": flat})
    grouped = numbers.with_columns(pl.col("row").set_sorted()).group_by("row").agg("numbers")
    every = pl.DataFrame({"row": np.arange(len(rows))})
    return every.join(grouped, on="row", how="left", maintain_order="left")["numbers"]


def assembled(facts: pl.DataFrame, counts: pl.DataFrame) -> pl.DataFrame:
    """The frame of all rows of both; an address is once among the facts."""
    whole = facts.select(*RUN).join(counts.select(*COUNTS), on="address", how="inner")
    return whole.sort("address", "kind", "at")


def _run(record: Record) -> dict[str, object]:
    run, outcome, cost, made = record.run, record.outcome, record.cost, record.provenance
    task, model, schedule, checks = (run[k] for k in ("task", "model", "schedule", "checks"))
    return {
        "address": record.address,
        "task": task["kind"],
        "model": name_of(model),
        "recurrent": recurrent(model["layers"]),
        "d": model["width"],
        "K": task.get("vocabulary"),
        "M": task.get("queries"),
        "tau": task.get("delay"),
        "L": schedule["context"],
        "distance": task.get("distance"),
        "repeats": task.get("repeats", task["kind"] == "associative-recall" or None),
        "budget": schedule["steps"],
        **{name: schedule[name] for name in ("rate", "batch", "warmup", "clip")},
        "decay": schedule["decay_steps"] / schedule["steps"]
        if "decay_steps" in schedule
        else schedule["decay"],
        "optimizer": schedule.get("optimizer", "adamw"),
        "weight_decay": schedule.get("weight_decay", 0.0),
        "shortest": schedule.get("shortest"),
        "curriculum": schedule.get("curriculum", {}).get("kind", "none"),
        **{name: checks[name] for name in ("every", "running", "solved")},
        "tests": len(outcome.contexts.at),
        "seed": run["seed"],
        "revision": run["revision"],
        "extends": address_of(run["extends"]) if run.get("extends") else None,
        "steps": outcome.steps,
        "ended_by": outcome.ended_by,
        "solved_at": outcome.solved_at,
        "parameters": cost.parameters,
        "state": cost.state_size,
        "seconds": cost.training_seconds + cost.evaluation_seconds,
        "kernels": made.kernels,
        "threads": str(made.threads),
        "machine": made.machine,
        "modules": ", ".join(made.modules or ()) or None,
        "versions": " ".join(f"{name} {number}" for name, number in made.versions.items()),
    }


def _counted(tally: Tally | None) -> dict[str, list[Any]]:
    """The columns of a tally; one without rows stands for what was not counted."""
    if tally is None:
        return {name: [] for name in _COUNTED}
    apart = zip(
        tally.correct, tally.correct_repeats, tally.total, tally.total_repeats, strict=False
    )
    pairs = [(correct - right, total - repeats) for correct, right, total, repeats in apart]
    return {
        "asked": tally.total,
        "correct": tally.correct,
        "asked_apart": [total for _, total in pairs],
        "correct_apart": [correct for correct, _ in pairs],
        "asked_by_query": tally.total_by_query,
        "correct_by_query": tally.correct_by_query,
    }
