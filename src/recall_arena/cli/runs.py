"""`recall runs ls` and `recall runs show`."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import polars as pl
import tyro

from recall_arena.cli import options, stores
from recall_arena.cli.accuracy import say_accuracy
from recall_arena.cli.command import Command
from recall_arena.cli.console import say, say_json, say_table
from recall_arena.cli.listing import brief, listed
from recall_arena.index import contents_of
from recall_arena.records import Record
from recall_arena.zoo import name_of

EARLIER = "none: an earlier version wrote it"


@dataclass(frozen=True)
class RunsLs(Command):
    """The records of a store, a line each, and what in it cannot be read (then the code is 1).

    Of the fields that describe runs only those are shown that differ among these; --json has all.
    `validation` is the last check's accuracy, `accuracy` that of the test, both at length L.
    """

    where: options.Where = ""
    sort: Annotated[str, tyro.conf.arg(help="a column to sort by, the smallest first")] = "address"
    reverse: Annotated[bool, tyro.conf.arg(help="the largest first")] = False
    imports: options.Imports = ()
    store: options.StoreFolder = Path("runs")
    json: options.Json = False

    def run(self) -> int:
        contents = contents_of(stores.opened(self.store))
        table = listed(contents, self.where, self.sort, descending=self.reverse)
        if self.json:
            say_json(table.rows(named=True))
        elif table.height:
            shown = brief(table).with_columns(pl.col("address").str.head(8))
            say_table(shown.columns, ([_cell(value) for value in row] for row in shown.iter_rows()))
        else:
            such = "such " * bool(self.where)
            say(f"no {such}records in {self.store}")
        return stores.tell_damaged(contents.damaged)


def _cell(value: object) -> object:
    """What a cell shows of a value: of a fraction four digits, of nothing nothing."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else value


@dataclass(frozen=True)
class RunsShow(Command):
    """One record, found by the beginning of its address."""

    address: options.Address
    imports: options.Imports = ()
    store: options.StoreFolder = Path("runs")
    json: options.Json = False

    def run(self) -> int:
        record = stores.record_named(self.store, self.address)
        if self.json:
            say_json(asdict(record))
            return 0
        for name, value in _facts(record).items():
            say(f"{name:<20} {value}")
        say_accuracy(record.outcome.contexts, trained=record.run["schedule"]["context"])
        return 0


def _facts(record: Record) -> dict[str, object]:
    run, outcome, made = record.run, record.outcome, record.provenance
    model, checks = run["model"], outcome.checks.accuracy()
    return {
        "address": record.address,
        "model": name_of(model),
        "d": model["width"],
        **{name: value for name, value in run["task"].items() if name != "kind"},
        "rate": run["schedule"]["rate"],
        "seed": run["seed"],
        "steps": outcome.steps,
        "ended_by": outcome.ended_by,
        "validation": round(checks[-1], 4) if checks else None,
        **asdict(record.cost),
        "finished": made.finished,
        "versions": " ".join(f"{name} {number}" for name, number in made.versions.items()),
        **({"of other packages": ", ".join(made.modules)} if made.modules else {}),
        "kernels": made.kernels,
        "kernels' build": made.kernels_build or "not recorded",
        "package's build": made.package_build or "not recorded",
        "checksum": EARLIER if made.package_build is None else "agrees",
    }
