"""`recall runs export` and `recall runs archive`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import polars as pl
import tyro

from recall_arena import atomic
from recall_arena.cli import options, stores
from recall_arena.cli.command import Command, Mistake
from recall_arena.cli.console import say, say_json
from recall_arena.cli.listing import brief, listed
from recall_arena.index import contents_of
from recall_arena.records import archive


@dataclass(frozen=True)
class RunsExport(Command):
    """Records as one CSV table: a row a record and context length, tested after training.

    What cannot be read is named, and the code then is 1.
    """

    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(help="the file to write, NAME.csv")]
    where: options.Where = ""
    imports: options.Imports = ()
    store: options.StoreFolder = Path("runs")

    def run(self) -> int:
        if self.out.is_dir():
            raise Mistake(f"{self.out} is a folder; name the CSV file")
        if self.out.suffix != ".csv" or (self.out.exists() and not self.out.is_file()):
            raise Mistake(f"an exported table is a file whose name ends in .csv, got {self.out}")
        store = stores.opened(self.store)
        stores.prepare(self.out.parent)
        contents = contents_of(store)
        tests = contents.frame.filter(pl.col("kind") == "test")
        counts = tests.select("address", context="at", correct="correct", n="asked")
        runs = brief(listed(contents, self.where))
        table = runs.join(counts, on="address", how="inner").sort("address", "context")
        atomic.write(self.out, table.write_csv().encode(), replace=True)
        say(str(self.out))
        return stores.tell_damaged(contents.damaged)


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
