"""A record as a file: one line of JSON that ends with a checksum of all before it."""

import hashlib
import json
import re
import stat
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from recall_arena import __version__
from recall_arena.config import mistakes_in
from recall_arena.records.identity import ADDRESS, check
from recall_arena.records.record import RECORD, Record

LARGEST = 1 << 28
"""Bytes beyond which no file is a record or an archive of some."""

_END = re.compile(rb',"checksum":"([0-9a-f]{64})"}\n')
UNSEALED = 5
"""The last revision of which records were written without a checksum."""

_END_SIZE = len(',"checksum":""}\n') + 64


class DamagedRecord(Exception):
    """A file does not hold the records that it should.

    path      the file
    address   that of the record, where the file is named like one
    reason    what is wrong with it
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} {reason}")
        self.path, self.reason = path, reason
        self.address = path.stem if ADDRESS.fullmatch(path.stem) else None


def to_json(record: Record) -> bytes:
    """One line; unlike pydantic's own writer this one keeps infinite numbers."""
    return json.dumps(RECORD.dump_python(record), separators=(",", ":")).encode()


def to_file(record: Record) -> bytes:
    """What a record's file holds.

    Raises ValueError for a record that no run can have produced, or that would be read differently.
    """
    text = to_json(record)
    if to_json(from_json(text, sealed=True)) != text:
        raise ValueError(f"record {record.address} would not be read as it is")
    body = text[:-1]
    return body + b',"checksum":"%s"}\n' % hashlib.sha256(body).hexdigest().encode()


def from_file(path: Path) -> Record:
    """The record in a file; raises DamagedRecord for all else that may have its name.

    Records of versions that wrote no checksum do not name the package's build, and are of a
    revision up to `UNSEALED`.
    """
    if not ADDRESS.fullmatch(path.stem):
        raise DamagedRecord(path, "is not named like a record, by 16 hexadecimal digits")
    content = content_of(path)
    body, end = content[:-_END_SIZE], _END.fullmatch(content[-_END_SIZE:])
    if end is not None and hashlib.sha256(body).hexdigest().encode() != end[1]:
        raise DamagedRecord(path, "has changed since it was written: its checksum is another")
    try:
        record = from_json(content if end is None else body + b"}", sealed=end is not None)
        if record.address != path.stem:
            raise ValueError(f"it holds record {record.address}")
    except ValueError as error:
        raise DamagedRecord(path, f"is not a record that can be read ({error})") from None
    return record


def from_json(text: bytes, *, sealed: bool) -> Record:
    """The record in a JSON text; ValueError if it is none, or if it should have been sealed."""
    try:
        record = RECORD.validate_json(text)
    except ValidationError as error:
        raise ValueError(mistakes_in(error) + _other_version(text)) from None
    check(record)
    if not sealed and (record.provenance.package_build or record.run["revision"] > UNSEALED):
        raise ValueError("its checksum is missing")
    return record


def content_of(path: Path) -> bytes:
    """The bytes of a regular file; DamagedRecord for all else that can have a name."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # reading a pipe would wait for ever
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "no file with a content"
            raise DamagedRecord(path, f"is {kind}")
        if status.st_size > LARGEST:
            raise DamagedRecord(path, f"has {status.st_size:,} bytes, more than any record")
        return path.read_bytes()
    except FileNotFoundError:
        if path.is_symlink():
            raise DamagedRecord(path, "is a link to nothing") from None
        raise
    except OSError as error:
        raise DamagedRecord(path, f"cannot be read ({error.strerror})") from None


def _other_version(text: bytes) -> str:
    """Which version wrote a record that this one cannot read, as far as it can be told."""
    try:
        values: Any = json.loads(text)
        theirs = values["provenance"]["versions"]["recall-arena"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""
    return (
        "" if theirs == __version__ else f"; recall-arena {theirs} wrote it, here is {__version__}"
    )
