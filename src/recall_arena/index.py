"""All records of a store as tables, by way of an index where reading each of them would take long.

The index is the file `.index.parquet` in the store.  It is a copy and nothing more: a file of
records that has another size, time or inode than when it was indexed is read again, and so is
everything if the index is missing, damaged or of another version of this package.  Deleting it
costs one reading of the store.
"""

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import polars as pl

from recall_arena import atomic
from recall_arena.frame import COUNTS, assembled, counts_of, facts_of
from recall_arena.outcomes import runs_of
from recall_arena.records import DamagedRecord, Record, Store, scan_file
from recall_arena.records.files import content_of
from recall_arena.records.sealed import seal, unseal
from recall_arena.sources import package_build

NAME = ".index.parquet"
WORTH_AN_INDEX = 500
"""How many records that are not in the index have it written anew."""

SETTLED = 2.0
"""Seconds for which a file must have stood unchanged before it is indexed."""

AT_ONCE = 500
A_FEW = 50
"""So many records are read at once where little memory counts more than the last bit of time."""
_COUNTS = [name for name in COUNTS if name != "address"]


@dataclass(frozen=True)
class Contents:
    """What a store holds.

    table     a row a record, by address: the frame's columns that describe runs, `run` as JSON
              text, the `file` that holds it, and a list in each column of counts
    damaged   what is named like a record or an archive and cannot be read as one
    """

    table: pl.DataFrame
    damaged: list[DamagedRecord]

    @cached_property
    def frame(self) -> pl.DataFrame:
        """The frame of all records."""
        return _frame(self.table)

    @cached_property
    def runs(self) -> pl.DataFrame:
        """A row a run, as `runs_of` says; of a few records at a time, since a frame is large."""
        parts = self.table.iter_slices(AT_ONCE) if self.table.height else [self.table]
        return pl.concat([runs_of(_frame(part)) for part in parts])


def contents_of(store: Store) -> Contents:
    """All records of a store, and what cannot be read; writes the index where that saves much.

    Raises OSError if the folder cannot be read.
    """
    stamps = _stamps((*store.files(), *store.files(".parquet")))
    indexed, table = _load(store.folder / NAME)
    current = {path.name for path, stamp in stamps.items() if indexed.get(path.name) == stamp}
    fresh = [path for path in stamps if path.name not in current]
    damaged: list[DamagedRecord] = []
    whole = pl.concat([table.filter(pl.col("file").is_in(current)), *_tables(fresh, damaged)])
    _save(store.folder / NAME, whole, stamps, fresh, {damage.path for damage in damaged})
    files_first = (pl.col("file").str.ends_with(".parquet"), "file")
    return Contents(_once(whole, *files_first), damaged)


def contents_of_files(paths: Iterable[Path]) -> Contents:
    """The records in these files, and what in them cannot be read."""
    damaged: list[DamagedRecord] = []
    tables = [_table([]), *_tables(list(paths), damaged)]
    return Contents(_once(pl.concat(tables)), damaged)


def runs_among(store: Store, addresses: Iterable[str]) -> pl.DataFrame:
    """A row a run, as `runs_of` says, of those addresses whose records are there and sound.

    Reads few records at a time: of thousands, all counts at once are more than a gigabyte.
    """
    some, found = iter(addresses), [runs_of(_frame(_table([])))]
    while batch := list(islice(some, A_FEW)):
        records = [(f"{one.address}.json", one) for one in store.read_all(batch)]
        if records:
            found.append(runs_of(_frame(_table(records))))
    return pl.concat(found)


def together(several: Sequence[Contents]) -> Contents:
    """All that some have, each record once."""
    whole = pl.concat([one.table for one in several])
    return Contents(_once(whole), [damage for one in several for damage in one.damaged])


def _frame(table: pl.DataFrame) -> pl.DataFrame:
    return assembled(table, table.select("address", *_COUNTS).explode(_COUNTS))


def _once(table: pl.DataFrame, *order: pl.Expr | str) -> pl.DataFrame:
    """Each record once, by address: the first of those rows that have its address.

    Rows come in an order, or else as they are.  They are moved a single time: their counts are most
    of what there is in memory.
    """
    keys = table.select("address", "file").with_row_index("row").sort(*order, "row")
    return table[keys.unique("address", keep="first", maintain_order=True).sort("address")["row"]]


def _stamps(paths: Iterable[Path]) -> dict[Path, str]:
    """What tells whether a file is still the one that was indexed; "" where there is no telling."""
    stamps = {}
    for path in paths:
        try:
            at = path.stat()
            stamp = f"{at.st_size} {at.st_mtime_ns} {at.st_ctime_ns} {at.st_ino}"
            unsettled = abs(time.time() - at.st_ctime) < SETTLED
            stamps[path] = "" if unsettled else stamp
        except OSError:
            stamps[path] = ""
    return stamps


def _load(path: Path) -> tuple[dict[str, str], pl.DataFrame]:
    """The stamps of the indexed files, and the table; both empty where the index is none."""
    nothing: dict[str, str] = {}
    empty = _table([])
    try:
        table, notes = unseal(content_of(path))
        usable = notes["build"] == package_build() and table.schema == empty.schema
        return (dict(json.loads(notes["files"])), table) if usable else (nothing, empty)
    except (DamagedRecord, FileNotFoundError, KeyError, TypeError, ValueError):
        return nothing, empty


def _save(
    path: Path, table: pl.DataFrame, stamps: dict[Path, str], fresh: list[Path], bad: set[Path]
) -> None:
    """Write the index, where many of the records that it could hold had to be read."""
    good = {path.name: stamp for path, stamp in stamps.items() if stamp and path not in bad}
    new = {path.name for path in fresh} & good.keys()
    if table["file"].is_in(new).sum() < WORTH_AN_INDEX:
        return
    notes = {"files": json.dumps(good), "build": package_build()}
    with suppress(OSError):  # a store that only others may write to
        content = seal(table.filter(pl.col("file").is_in(good)), notes, level=1)
        atomic.write(path, content, replace=True)


def _tables(paths: list[Path], damaged: list[DamagedRecord]) -> Iterator[pl.DataFrame]:
    """The tables of these files' records, a few at a time; what cannot be read is added to a list.

    In a table every address is once: that of a file may be in an archive as well.
    """
    files = [path for path in paths if path.suffix != ".parquet"]
    archives = [path for path in paths if path.suffix == ".parquet"]
    for group in (files, *([path] for path in archives)):
        records = _records(group, damaged)
        while batch := list(islice(records, AT_ONCE)):
            yield _table(batch)


def _records(paths: Iterable[Path], damaged: list[DamagedRecord]) -> Iterator[tuple[str, Record]]:
    for path in paths:
        for one in scan_file(path):
            if isinstance(one, DamagedRecord):
                damaged.append(one)
            else:
                yield path.name, one


def _table(named: list[tuple[str, Record]]) -> pl.DataFrame:
    records = [record for _, record in named]
    texts = [json.dumps(record.run) for record in records]
    files = [name for name, _ in named]
    facts = facts_of(records).with_columns(
        run=pl.Series(texts, dtype=pl.String), file=pl.Series(files, dtype=pl.String)
    )
    counts = counts_of(records).group_by("address", maintain_order=True).agg(_COUNTS)
    return facts.join(counts, on="address", how="left", maintain_order="left")
