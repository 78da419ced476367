"""Parquet files that hold a checksum of themselves.

It stands among the file's own notes, as the SHA-256 of the file with zeros in its place; a reader
that knows nothing of it reads the file as any other.
"""

import hashlib
import io
import re
from collections.abc import Mapping

import polars as pl
from polars.exceptions import PanicException, PolarsError

NOTE = "recall-arena.sha256"
_ZEROS = "0" * 64
_SEAL = re.compile(NOTE.encode().replace(b".", rb"\.") + rb"\x18@([0-9a-f]{64})")


def seal(frame: pl.DataFrame, notes: Mapping[str, str] | None = None, *, level: int = 9) -> bytes:
    """The frame as a Parquet file with a checksum and other notes, compressed by zstd."""
    file = io.BytesIO()
    every = {**(notes or {}), NOTE: _ZEROS}
    frame.write_parquet(file, compression="zstd", compression_level=level, metadata=every)
    content = file.getvalue()
    found = _last_seal(content)
    if found is None:
        raise RuntimeError("this version of polars writes notes into Parquet files otherwise")
    digest = hashlib.sha256(content).hexdigest().encode()
    return content[: found.start(1)] + digest + content[found.end(1) :]


def unseal(content: bytes) -> tuple[pl.DataFrame, dict[str, str]]:
    """The frame in a Parquet file, and its notes; NOTE is among them if it has a checksum.

    Raises ValueError if it is no Parquet file, or not as its checksum says.
    """
    found = _last_seal(content)
    if found is not None:
        zeroed = content[: found.start(1)] + _ZEROS.encode() + content[found.end(1) :]
        if hashlib.sha256(zeroed).hexdigest().encode() != found[1]:
            raise ValueError("it has changed since it was written: its checksum is another")
    try:
        notes = pl.read_parquet_metadata(io.BytesIO(content))
        if found is None and notes.keys() != {"ARROW:schema"}:  # all that polars notes by itself
            raise ValueError("its checksum is damaged, or another program wrote it")
        return pl.read_parquet(io.BytesIO(content)), notes
    except (PolarsError, PanicException, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"it is not Parquet: {reason}") from None


def _last_seal(content: bytes) -> "re.Match[bytes] | None":
    return max(_SEAL.finditer(content), key=re.Match.start, default=None)
