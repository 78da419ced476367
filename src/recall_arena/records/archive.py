"""Many records in one Parquet file that is written once, and holds its own checksum.

A row is a record and a column one of its fields; what has fields of its own is a struct, and
curves are lists.  Dictionaries (the run, the versions of packages) are JSON text: which keys
they have differs from record to record.  The same records give the same bytes with the same
version of polars.
"""

import dataclasses
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin

import polars as pl

from recall_arena.records.files import DamagedRecord, content_of, from_json, to_json
from recall_arena.records.identity import check
from recall_arena.records.record import RECORD, Record
from recall_arena.records.sealed import NOTE, seal, unseal

_SCALARS = {int: pl.Int64, float: pl.Float64, str: pl.String}


def pack(records: Iterable[Record]) -> bytes:
    """The records as a Parquet file, by address.

    Raises ValueError for one that no run can have produced, or that would be read differently.
    """
    ordered = sorted(records, key=lambda record: record.address)
    schema = {field.name: _column(field.type) for field in dataclasses.fields(Record)}
    content = seal(pl.DataFrame(list(map(_to_row, ordered)), schema=schema))
    rows = unseal(content)[0].iter_rows(named=True)
    for record, row in zip(ordered, rows, strict=True):
        check(record)
        if _text(row) != to_json(record):
            raise ValueError(f"record {record.address} would not be read as it is")
    return content


class Archive:
    """A Parquet file of records; raises DamagedRecord where it is none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._frame, notes = unseal(content_of(path))
            self._sealed = NOTE in notes
            addresses = self._frame.get_column("address").cast(pl.String)
        except (ValueError, pl.exceptions.PolarsError) as error:
            reason = str(error).partition("\n")[0]
            raise DamagedRecord(path, f"is not an archive of records ({reason})") from None
        self.rows = {address: row for row, address in enumerate(addresses)}

    def read(self, address: str) -> Record:
        """Raises KeyError if there is no such record, DamagedRecord if it cannot be read."""
        row = self._frame.row(self.rows[address], named=True)
        try:
            return from_json(_text(row), sealed=self._sealed)
        except (ValueError, TypeError, LookupError) as error:
            raise DamagedRecord(
                self.path, f"holds a record {address} that cannot be read ({error})"
            ) from None

    def scan(self) -> Iterator[Record | DamagedRecord]:
        """Its records in their order, and in the place of one that cannot be read why."""
        for address in self.rows:
            try:
                yield self.read(address)
            except DamagedRecord as damage:
                yield damage


def _column(annotation: Any) -> Any:
    """The type of column that holds values of a type."""
    if dataclasses.is_dataclass(annotation):
        return pl.Struct({f.name: _column(f.type) for f in dataclasses.fields(annotation)})
    if annotation in _SCALARS:
        return _SCALARS[annotation]
    kind, arguments = get_origin(annotation), get_args(annotation)
    if kind is list:
        return pl.List(_column(arguments[0]))
    if kind is UnionType and arguments[1:] == (type(None),):
        return _column(arguments[0])
    if kind in (dict, Literal):
        return pl.String
    raise TypeError(f"no column holds {annotation}")


def _to_row(record: Record) -> dict[str, Any]:
    row = RECORD.dump_python(record)
    row["run"] = json.dumps(record.run)
    row["provenance"]["versions"] = json.dumps(record.provenance.versions)
    return row


def _text(row: dict[str, Any]) -> bytes:
    """A row as the JSON text of its record."""
    provenance = {**row["provenance"], "versions": json.loads(row["provenance"]["versions"])}
    whole = {**row, "run": json.loads(row["run"]), "provenance": provenance}
    return json.dumps(whole, separators=(",", ":")).encode()
