"""What a sweep found: its points, which of them is the best, and how far that can be trusted."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from recall_arena import atomic
from recall_arena.choosing import chosen, points
from recall_arena.cli.console import say, say_json, say_table
from recall_arena.cli.grid import Point
from recall_arena.index import runs_among
from recall_arena.records import Store

RESULTS = ("runs", "ended_by", "solved_at", "validation", "accuracy")


def show_choice(
    grid: Mapping[str, Point], per: Sequence[str], store: Store, path: Path | None, *, as_json: bool
) -> None:
    """Print the points of a sweep with the best among them, and write the choice to a file.

    grid  the values of each run's varied fields, by address
    per   fields for each of whose values one is chosen
    """
    varied = [name for name in next(iter(grid.values())) if name != "seed"]
    seeds = len({point.get("seed") for point in grid.values()})
    tried = points(_trials(grid, store), varied, seeds)
    best = chosen(tried, varied, per)
    choices = [_choice(row, varied, per) for row in best.iter_rows(named=True)]
    if path is not None:
        atomic.write(path, (json.dumps(choices, indent=2) + "\n").encode(), replace=True)
    if as_json:
        say_json(choices)
        return
    firsts = set(best["addresses"].list.first())
    shown = tried.with_columns(pl.col("validation", "accuracy").round(4))
    rows = [
        [*(_cell(row[name]) for name in (*varied, *RESULTS)), "*" * (row["addresses"][0] in firsts)]
        for row in shown.iter_rows(named=True)
    ]
    say_table((*varied, *RESULTS, "best"), rows)
    for choice in choices:
        say(_said(choice))
    if not choices:
        say("nothing can be chosen: at every point a run diverged or is missing")


def _trials(grid: Mapping[str, Point], store: Store) -> pl.DataFrame:
    """A row for each run that is there: its point of the grid, and how it ended."""
    described = pl.DataFrame(
        [{**point, "address": address} for address, point in grid.items()],
        infer_schema_length=None,
        strict=False,
    )
    runs = runs_among(store, grid).select(
        *("address", "ended_by", "solved_at", "validation"), accuracy="at_L"
    )
    return described.join(runs, on="address", how="inner", maintain_order="left")


def _choice(row: dict[str, Any], varied: Sequence[str], per: Sequence[str]) -> dict[str, Any]:
    return {
        "per": {name: row[name] for name in per},
        "chosen": {name: row[name] for name in varied if name not in per},
        "at_the_edge": row["edge"],
        **{name: row[name] for name in (*RESULTS, "addresses")},
    }


def _said(choice: dict[str, Any]) -> str:
    """A choice in a line, with a warning where the grid ends at it."""
    for_ = "".join(f"for {name}={value}: " for name, value in choice["per"].items())
    values = ", ".join(f"{name}={value}" for name, value in choice["chosen"].items())
    edges = " and ".join(choice["at_the_edge"])
    stand = "stand" if len(choice["at_the_edge"]) > 1 else "stands"
    warning = f"; {edges} {stand} at the edge of the grid, beyond which may be better" * bool(edges)
    return f"{for_}best is {values or 'the only point'}{warning}"


def _cell(value: object) -> object:
    return "" if value is None else value
