"""Measurements as rows: one a line of results/benchmarks.jsonl, by machine and commit.

A run adds its rows at the end.  Where the same machine and commit had measured a setting before,
the new rows replace the old ones, all contenders of the setting together, for their ratios are to
the time of ours in the same run.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

OURS, FLOOR = "recall-arena", "the core's floor"  # contenders
OUTSIDE = "% outside kernels"  # a figure
DIGITS = 5  # significant ones that a line keeps


@dataclass(frozen=True)
class Origin:
    """Where and when something was measured.

    machine   the processor
    commit    of this repository; -dirty where its code had been changed since
    date      ISO 8601, UTC, to the minute
    kernels   which of ours ran
    versions  of Python and of what is compared
    """

    machine: str
    commit: str
    date: str
    kernels: str
    versions: str


@dataclass(frozen=True)
class Setting:
    """What one comparison is about: the part, what is computed, and its sizes by name."""

    part: str
    subject: str
    shape: dict[str, int]

    def title(self) -> str:
        """One line for people."""
        return f"{self.part}: {self.subject}, {sizes(self.shape)}"


@dataclass(frozen=True)
class Row:
    """One measurement: times in milliseconds, `ratio` to the median of ours.

    rounds           how often it was timed; 0 for a bound that was computed
    low_ms, high_ms  quartiles
    cores            processor seconds a second: 1 for one busy thread, less if others intervened
    figures          what only some parts measure: memory, seconds of compilation, the roofline
    """

    part: str
    subject: str
    stage: str
    shape: dict[str, int]
    threads: int
    contender: str
    rounds: int
    median_ms: float
    low_ms: float
    high_ms: float
    ratio: float
    cores: float
    figures: dict[str, float]


@dataclass(frozen=True)
class LeftOut:
    """A contender that was not timed, and why."""

    part: str
    subject: str
    shape: dict[str, int]
    threads: int
    contender: str
    reason: str


@dataclass(frozen=True)
class Kept:
    """A line of the file."""

    origin: Origin
    row: Row | LeftOut

    def setting(self) -> tuple[object, ...]:
        """What is replaced together."""
        row = self.row
        where = (self.origin.machine, self.origin.commit)
        return (*where, row.part, row.subject, sizes(row.shape), row.threads)


def read(path: Path) -> list[Kept]:
    """The file's rows, in its order; none if there is no file.  Raises TypeError for other rows."""
    if not path.exists():
        return []
    return [_parsed(line) for line in path.read_text().splitlines()]


def _parsed(line: str) -> Kept:
    told = json.loads(line)
    origin = Origin(**{field.name: told.pop(field.name) for field in fields(Origin)})
    return Kept(origin, LeftOut(**told) if "reason" in told else Row(**told))


def add(path: Path, origin: Origin, rows: Sequence[Row | LeftOut]) -> None:
    """Append the rows; they replace those of their settings by the same machine and commit."""
    new = [Kept(origin, row) for row in rows]
    replaced = {each.setting() for each in new}
    kept = [each for each in read(path) if each.setting() not in replaced]
    lines = (json.dumps(_rounded(asdict(e.origin) | asdict(e.row))) for e in [*kept, *new])
    path.write_text("".join(f"{line}\n" for line in lines))


def _rounded(told: object) -> object:
    if isinstance(told, dict):
        return {name: _rounded(each) for name, each in told.items()}
    return float(f"{told:.{DIGITS}g}") if isinstance(told, float) else told


def sizes(shape: dict[str, int]) -> str:
    """The sizes as text."""
    return ", ".join(f"{name} {size}" for name, size in shape.items())
