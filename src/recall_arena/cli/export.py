"""`recall runs export` and `recall runs archive`."""

import json
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Annotated

import polars as pl
import tyro

from recall_arena import atomic
from recall_arena.cli import options, stores
from recall_arena.cli.command import Command, Mistake
from recall_arena.cli.console import say, say_json
from recall_arena.cli.listing import listed
from recall_arena.frame import COUNTS, LISTS
from recall_arena.index import contents_of
from recall_arena.records import DamagedRecord, archive
from recall_arena.records.archive import Archive

FORMATS = (".csv", ".parquet", ".jsonl")


@dataclass(frozen=True)
class RunsExport(Command):
    """Records as one table, with every field of each run and its curves: CSV, Parquet, JSON lines.

    A record has a row of kind "run", one of kind "check" for each validation, at so many
    iterations, and one of kind "test" for each context length.  What cannot be read is named, and
    the code then is 1.
    """

    out: Annotated[
        Path,
        tyro.conf.Positional,
        tyro.conf.arg(help="the file to write, NAME.csv, NAME.parquet or NAME.jsonl"),
    ]
    where: options.Where = ""
    imports: options.Imports = ()
    store: options.StoreFolder = Path("runs")

    def run(self) -> int:
        store = stores.opened(self.store)
        self._check_out()
        stores.prepare(self.out.parent)
        contents = contents_of(store)
        curves = contents.frame.select(*COUNTS)
        table = listed(contents, self.where).join(curves, on="address", how="inner")
        ordered = table.sort("address", "kind", "at")
        atomic.write(self.out, _content(ordered, self.out.suffix), replace=True)
        say(str(self.out))
        return stores.tell_damaged(contents.damaged)

    def _check_out(self) -> None:
        """Raises Mistake where the file is none to write to, above all a record or an archive."""
        if self.out.is_dir():
            raise Mistake(f"{self.out} is a folder; name the file")
        if self.out.suffix not in FORMATS or (self.out.exists() and not self.out.is_file()):
            allowed = ", ".join(FORMATS)
            raise Mistake(f"an exported table's name ends in one of {allowed}, got {self.out}")
        if self.out.suffix == ".parquet" and self.out.parent.resolve() == self.store.resolve():
            raise Mistake(f"{self.out} would be read as an archive; write it to another folder")
        with suppress(DamagedRecord, FileNotFoundError):
            if self.out.suffix == ".parquet" and Archive(self.out).rows is not None:
                raise Mistake(f"{self.out} is an archive of records, which is never written over")


def _content(table: pl.DataFrame, suffix: str) -> bytes:
    """A table as the bytes of a file; lists are JSON text in a CSV."""
    if suffix == ".jsonl":
        return table.write_ndjson().encode()
    if suffix == ".parquet":
        file = BytesIO()
        table.write_parquet(file)
        return file.getvalue()
    lists = [name for name, kind in table.schema.items() if kind == LISTS]
    texts = [pl.Series(name, map(_json, table[name].to_list()), pl.String) for name in lists]
    return table.with_columns(texts).write_csv().encode()


def _json(numbers: list[int] | None) -> str | None:
    return None if numbers is None else json.dumps(numbers)


@dataclass(frozen=True)
class RunsArchive(Command):
    """Pack a store's JSON records into one Parquet file, which every command reads as well.

    Records that another archive in the same folder holds, or that cannot be read, are left out;
    no JSON file is removed.
    """

    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(help="the new file, NAME.parquet")]
    imports: options.Imports = ()
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
        return stores.tell_damaged(contents_of(store).damaged)
