"""`recall runs ls`, `show`, `export` and `archive`."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import polars as pl
import tyro

from recall_arena import atomic
from recall_arena.cli import options, stores
from recall_arena.cli.accuracy import say_accuracy
from recall_arena.cli.command import Command, Mistake
from recall_arena.cli.console import say, say_json, say_table
from recall_arena.records import Record, archive
from recall_arena.zoo import name_of


def _brief(record: Record) -> dict[str, object]:
    run, outcome = record.run, record.outcome
    model = run["model"]
    checks = outcome.checks.accuracy()
    return {
        "address": record.address,
        "model": name_of(model),
        "d": model["width"],
        "task": run["task"]["kind"],
        **{name: run["task"][name] for name in run["task"] if name not in ("kind", "vocabulary")},
        "rate": run["schedule"]["rate"],
        "seed": run["seed"],
        "steps": outcome.steps,
        "end": outcome.ended_by,
        "validation at L": round(checks[-1], 4) if checks else None,
    }


@dataclass(frozen=True)
class RunsLs(Command):
    """The records of a store, a line each; the accuracy is the last check's, at length L."""

    store: options.StoreFolder = Path("runs")
    json: options.Json = False

    def run(self) -> int:
        rows = [_brief(record) for record in stores.opened(self.store)]
        if self.json:
            say_json(rows)
        elif rows:
            columns = list(dict.fromkeys(name for row in rows for name in row))
            short = [{**row, "address": str(row["address"])[:8]} for row in rows]
            say_table(columns, [[row.get(name, "") for name in columns] for row in short])
        else:
            say(f"no records in {self.store}")
        return 0


@dataclass(frozen=True)
class RunsShow(Command):
    """One record, found by the beginning of its address."""

    address: Annotated[
        str, tyro.conf.Positional, tyro.conf.arg(help="the beginning of the record's address")
    ]
    store: options.StoreFolder = Path("runs")
    json: options.Json = False

    def run(self) -> int:
        record = stores.record_named(self.store, self.address)
        if self.json:
            say_json(asdict(record))
            return 0
        for name, value in {**_brief(record), **asdict(record.cost)}.items():
            say(f"{name:<20} {value}")
        say(f"{'finished':<20} {record.provenance.finished}")
        say(f"{'kernels':<20} {record.provenance.kernels}")
        say_accuracy(record.outcome.contexts, trained=record.run["schedule"]["context"])
        return 0


@dataclass(frozen=True)
class RunsExport(Command):
    """All records as one CSV table: a row a record and context length, tested after training."""

    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(help="the CSV file to write")]
    store: options.StoreFolder = Path("runs")

    def run(self) -> int:
        if self.out.is_dir():
            raise Mistake(f"{self.out} is a folder; name the CSV file")
        store = stores.opened(self.store)
        stores.prepare(self.out.parent)
        rows = [
            {**_brief(record), "context": at, "correct": correct, "n": total}
            for record in store
            for at, correct, total in zip(
                record.outcome.contexts.at,
                record.outcome.contexts.correct,
                record.outcome.contexts.total,
                strict=True,
            )
        ]
        table = pl.DataFrame(rows, infer_schema_length=None).write_csv()
        atomic.write(self.out, table.encode(), replace=True)
        say(str(self.out))
        return 0


@dataclass(frozen=True)
class RunsArchive(Command):
    """Pack a store's JSON records into one Parquet file, which every command reads as well.

    Records that another archive in the same folder holds are left out, and no JSON file is
    removed.
    """

    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(help="the new file, NAME.parquet")]
    store: options.StoreFolder = Path("runs")
    json: options.Json = False

    def run(self) -> int:
        store = stores.opened(self.store)
        stores.to_write(self.out.parent)
        try:
            count = archive(store, self.out)
        except (FileExistsError, ValueError) as error:
            raise Mistake(str(error)) from None
        if self.json:
            say_json({"archive": str(self.out), "records": count})
        else:
            say(f"{self.out}: {count} records")
        return 0
