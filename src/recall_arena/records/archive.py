"""Many records in one Parquet file that is written once.

A row is a record and a column one of its fields; what has fields of its own is a struct, and
curves are lists.  Dictionaries (the run, the versions of packages) are JSON text: which keys
they have differs from record to record.  The same records give the same bytes with the same
version of polars.
"""

import dataclasses
import io
import json
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin

import polars as pl
from polars.exceptions import PanicException, PolarsError
from pydantic import ValidationError

from recall_arena.records.record import RECORD, DamagedRecord, Record, to_json

_SCALARS = {int: pl.Int64, float: pl.Float64, str: pl.String}


def pack(records: Iterable[Record]) -> bytes:
    """The records as a Parquet file, by address.

    Raises ValueError for one that would be read differently, such as an integer beyond int64.
    """
    ordered = sorted(records, key=lambda record: record.address)
    schema = {field.name: _column(field.type) for field in dataclasses.fields(Record)}
    frame = pl.DataFrame(list(map(_to_row, ordered)), schema=schema)
    file = io.BytesIO()
    frame.write_parquet(file, compression="zstd", compression_level=9)
    content = file.getvalue()
    for record, row in zip(ordered, pl.read_parquet(content).iter_rows(named=True), strict=True):
        if not _holds(row, record):
            raise ValueError(f"record {record.address} would not be read as it is")
    return content


class Archive:
    """A Parquet file of records; raises DamagedRecord where it is none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        column = self._read(["address"]).to_series()
        self.rows = {address: row for row, address in enumerate(column)}

    def read(self, address: str) -> Record:
        """Raises KeyError if there is no such record."""
        return _from_row(self._frame.row(self.rows[address], named=True))

    @cached_property
    def _frame(self) -> pl.DataFrame:
        return self._read(None)

    def _read(self, columns: list[str] | None) -> pl.DataFrame:
        try:
            return pl.read_parquet(self.path, columns=columns)
        except (PolarsError, PanicException, OSError) as error:
            reason = str(error).partition("\n")[0]
            raise DamagedRecord(f"{self.path} is not an archive of records ({reason})") from None


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


def _holds(row: dict[str, Any], record: Record) -> bool:
    """Whether a row is read as the record, NaNs too; polars writes null for what does not fit."""
    try:
        return to_json(_from_row(row)) == to_json(record)
    except ValidationError:
        return False


def _from_row(row: dict[str, Any]) -> Record:
    row["run"] = json.loads(row["run"])
    row["provenance"]["versions"] = json.loads(row["provenance"]["versions"])
    return RECORD.validate_python(row)
