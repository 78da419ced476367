"""`recall runs ls`, `recall runs show` and `recall runs export`."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import polars as pl
import tyro

from recall_arena.cli import options
from recall_arena.cli.accuracy import say_accuracy
from recall_arena.cli.command import Command, Mistake
from recall_arena.cli.console import say, say_json, say_table
from recall_arena.model import name_of
from recall_arena.records import Record, Store
from recall_arena.runs import from_json


def _records(folder: Path) -> Iterator[Record]:
    if not folder.is_dir():
        raise Mistake(f"no records: {folder} is not a folder")
    store = Store(folder)
    for path in sorted(folder.glob("*.json")):
        yield options.read(store, path.stem)


def _brief(record: Record) -> dict[str, object]:
    run, outcome = record.run, record.outcome
    checks = outcome.checks.accuracy()
    return {
        "address": record.address,
        "model": name_of(from_json(run).model),
        "d": run["model"]["width"],
        **{name: run["task"][name] for name in run["task"] if name not in ("kind", "vocabulary")},
        "rate": run["schedule"]["rate"],
        "seed": run["seed"],
        "steps": outcome.steps,
        "end": outcome.ended_by,
        "at L": round(checks[-1], 4) if checks else None,
    }


@dataclass(frozen=True)
class RunsLs(Command):
    """The records of a store, a line each; accuracy is the last check's, at the training length."""

    store: options.StoreFolder = Path("runs")
    json: options.Json = False

    def run(self) -> int:
        rows = [_brief(record) for record in _records(self.store)]
        if self.json:
            say_json(rows)
        elif rows:
            short = [{**row, "address": str(row["address"])[:8]} for row in rows]
            say_table(list(rows[0]), [list(row.values()) for row in short])
        else:
            say(f"no records in {self.store}")
        return 0


@dataclass(frozen=True)
class RunsShow(Command):
    """One record, found by the beginning of its address."""

    address: Annotated[str, tyro.conf.Positional]
    store: options.StoreFolder = Path("runs")
    json: options.Json = False

    def run(self) -> int:
        record = options.record_named(Store(self.store), self.address)
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
    """All records as one CSV table: a row a record and context length."""

    out: Annotated[Path, tyro.conf.Positional]
    store: options.StoreFolder = Path("runs")

    def run(self) -> int:
        rows = [
            {**_brief(record), "context": at, "correct": correct, "n": total}
            for record in _records(self.store)
            for at, correct, total in zip(
                record.outcome.contexts.at,
                record.outcome.contexts.correct,
                record.outcome.contexts.total,
                strict=True,
            )
        ]
        pl.DataFrame(rows, infer_schema_length=None).write_csv(self.out)
        say(str(self.out))
        return 0
