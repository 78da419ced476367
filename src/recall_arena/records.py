"""Records: what runs produced, as small JSON files addressed by what was run.

Nothing here imports torch: reading and drawing records needs no model.
"""

import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError


@dataclass(frozen=True)
class Tally:
    """Counts in columns: row i belongs to position i of `at`.

    at                steps of training, or context lengths
    total, correct    sequences, and right answers among them
    total_by_query    the same for each query; the order is that of the tokens
    total_repeats     the same for the sequences whose value is the query itself
    """

    at: list[int]
    total: list[int]
    correct: list[int]
    total_by_query: list[list[int]]
    correct_by_query: list[list[int]]
    total_repeats: list[int]
    correct_repeats: list[int]

    def accuracy(self) -> list[float]:
        """The share of right answers in each row, in 0..1."""
        return [right / all_ for right, all_ in zip(self.correct, self.total, strict=True)]

    def accuracy_at(self, position: int) -> float:
        """The share of right answers at one step or length; KeyError if it was not measured."""
        if position not in self.at:
            raise KeyError(f"nothing was measured at {position}")
        row = self.at.index(position)
        return self.correct[row] / self.total[row]


@dataclass(frozen=True)
class Outcome:
    """What a run found.  The same run finds the same, bit for bit, on the same platform.

    ended_by    "solved", the rule that ended it early; "budget"; or "diverged", a loss that is
                not finite
    steps       optimizer steps taken
    solved_at   the step of the first of the checks that met the rule, or None
    losses      the mean training loss between one check and the next
    checks      validation accuracy along training, by step, at the training context
    contexts    test accuracy after training, by context length
    """

    ended_by: Literal["solved", "budget", "diverged"]
    steps: int
    solved_at: int | None
    losses: list[float]
    checks: Tally
    contexts: Tally


@dataclass(frozen=True)
class Cost:
    """What a run took: trained numbers, numbers of state at the training context, seconds."""

    parameters: int
    state_size: int
    training_seconds: float
    evaluation_seconds: float


@dataclass(frozen=True)
class Provenance:
    """Where a record comes from; none of it decides the outcome but for rounding."""

    versions: dict[str, str]
    kernels: str
    threads: int
    machine: str
    finished: str


@dataclass(frozen=True)
class Record:
    """A run as JSON, its address, and what it produced."""

    address: str
    run: dict[str, Any]
    outcome: Outcome
    cost: Cost
    provenance: Provenance


class DamagedRecord(Exception):
    """A record's file does not hold a record; the message names the file and the reason."""


_JSON = TypeAdapter(Record)


def _to_json(record: Record) -> bytes:
    """One line; unlike pydantic's own writer this one keeps infinite numbers."""
    return json.dumps(_JSON.dump_python(record), separators=(",", ":")).encode() + b"\n"


class Store:
    """A folder of records, one file an address.  Any number of processes may use it at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __contains__(self, address: str) -> bool:
        return self._path(address).exists()

    def read(self, address: str) -> Record:
        """Raises KeyError if there is no such record, DamagedRecord if its file is broken."""
        path = self._path(address)
        try:
            return _JSON.validate_json(path.read_bytes())
        except FileNotFoundError:
            raise KeyError(f"no record {address} in {self.folder}") from None
        except ValidationError as error:
            first = error.errors()[0]["msg"]
            raise DamagedRecord(
                f"{path} is not a record ({first}); delete it to run again"
            ) from None

    def read_all(self, addresses: Iterable[str]) -> list[Record]:
        """Those of the addresses that have a record, in their order."""
        return [self.read(address) for address in addresses if address in self]

    def __iter__(self) -> Iterator[Record]:
        for path in sorted(self.folder.glob("*.json")):
            yield self.read(path.stem)

    def write(self, record: Record) -> None:
        """Add a record, whole or not at all.  What is already there stays as it is."""
        self.folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self.folder, prefix=".", suffix=".partial")
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_to_json(record))
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(0o644)
            self._publish(temporary, self._path(record.address))
        finally:
            temporary.unlink(missing_ok=True)

    def _publish(self, temporary: Path, path: Path) -> None:
        try:
            path.hardlink_to(temporary)  # fails rather than overwrites
        except FileExistsError:
            pass
        except OSError:  # a file system without hard links
            if not path.exists():
                temporary.replace(path)

    def _path(self, address: str) -> Path:
        return self.folder / f"{address}.json"
