"""What a run of the benchmarks was asked for, and what it tells: tables and JSON."""

import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

UNDISTURBED = 0.9  # of a core


@dataclass(frozen=True)
class Options:
    """What the command line chooses.

    threads        cores, and threads of each contender
    rounds         turns that are timed
    patience       seconds of turns after which a contender takes no more of them
    batch          sequences at once, except in the part `long`
    lengths        tokens before the query, or in a sequence; empty for each part's own choice
    widths         d; empty for each part's own choice
    contenders     words of which a contender's name must have one; empty for all of them
    stride         evaluation: every how many lengths
    sequences      evaluation: how many a length
    compile_limit  seconds that torch.compile may take; 0 leaves it out
    compile_block  whether it is tried on a whole block as well, which takes minutes
    longest        long: the binary logarithm of the most tokens
    seconds_limit  long: a contender that would take longer for one sequence is left out
    memory_limit   long: so is one that would take more memory, in MiB
    """

    threads: int = 1
    rounds: int = 11
    patience: float = 3.0
    batch: int = 64
    lengths: tuple[int, ...] = ()
    widths: tuple[int, ...] = ()
    contenders: tuple[str, ...] = ()
    stride: int = 38
    sequences: int = 1000
    compile_limit: float = 60.0
    compile_block: bool = False
    longest: int = 20
    seconds_limit: float = 30.0
    memory_limit: float = 8192.0

    def wants(self, contender: str) -> bool:
        """Whether a contender other than ours takes part."""
        words = [word.lower() for word in self.contenders]
        return not words or any(word in contender.lower() for word in words)


@dataclass(frozen=True)
class Setting:
    """What one comparison is about: the part, what is computed, and its sizes by name."""

    part: str
    subject: str
    shape: dict[str, int]

    def title(self) -> str:
        """One line for people."""
        return f"{self.part}: {self.subject}, {_sizes(self.shape)}"


@dataclass(frozen=True)
class Row:
    """One measurement: times in milliseconds, `ratio` to the median of ours.

    rounds   how often it was timed; 0 for a bound that was computed
    cores    processor seconds a second: 1 for one busy thread, less if others were in the way
    figures  what only some parts measure: memory, seconds of compilation, the roofline
    """

    part: str
    subject: str
    stage: str
    shape: dict[str, int]
    threads: int
    contender: str
    rounds: int
    median_ms: float
    quartiles_ms: tuple[float, float]
    ratio: float
    cores: float
    figures: dict[str, float]


@dataclass(frozen=True)
class LeftOut:
    """A contender that was not timed, and why."""

    part: str
    subject: str
    shape: dict[str, int]
    contender: str
    reason: str


@dataclass
class Report:
    """What was measured so far.  Progress goes to standard error, tables to standard output."""

    rows: list[Row] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    def say(self, line: str) -> None:
        """Tell how far the run is."""
        print(line, file=sys.stderr, flush=True)

    def leave_out(self, setting: Setting, contender: str, reason: str) -> None:
        """Remember and say that a contender is not timed."""
        self.say(f"  {contender}: NOT TIMED, {reason}")
        left = LeftOut(setting.part, setting.subject, setting.shape, contender, reason)
        self.left_out.append(left)

    def tables(self, part: str) -> list[str]:
        """The part's measurements in Markdown, then bounds, then one line for each left out."""
        rows = [row for row in self.rows if row.part == part]
        measured = [row for row in rows if row.rounds > 0]
        bounds = [row for row in rows if row.rounds == 0]
        reasons = [
            f"* {each.subject}, {_sizes(each.shape)}: {each.contender} left out, {each.reason}"
            for each in self.left_out
            if each.part == part
        ]
        blocks = [_table(measured), _table(bounds), [*_disturbances(measured), *reasons]]
        return [line for block in blocks if block for line in [*block, ""]]

    def write(self, path: Path, machine: dict[str, object], options: Options) -> None:
        """Everything, as JSON."""
        facts = {
            "machine": machine,
            "options": asdict(options),
            "rows": [asdict(row) for row in self.rows],
            "left_out": [asdict(each) for each in self.left_out],
        }
        path.write_text(json.dumps(facts, indent=1) + "\n")


def _disturbances(rows: list[Row]) -> list[str]:
    """One line if other processes took part of the time of what was measured."""
    disturbed = [row for row in rows if row.cores < UNDISTURBED]
    if not disturbed:
        return []
    least = min(row.cores for row in disturbed)
    return [
        f"* {len(disturbed)} of {len(rows)} measurements had less than {UNDISTURBED:g} of a core, "
        f"down to {least:.2f}: other processes were in the way"
    ]


def _table(rows: list[Row]) -> list[str]:
    """The rows with whatever figures they have; none where there are no rows."""
    if not rows:
        return []
    figures = list(dict.fromkeys(name for row in rows for name in row.figures))
    heads = ["what", "shape", "contender", "timed", "median ms", "quartiles ms", "times ours"]
    lines = [_line([*heads, *figures]), _line([":--"] * 3 + ["--:"] * (4 + len(figures)))]
    for row in rows:
        low, high = row.quartiles_ms
        cells = [f"{row.subject}, {row.stage}", _sizes(row.shape), row.contender, str(row.rounds)]
        cells += [_digits(row.median_ms), f"{_digits(low)}-{_digits(high)}", f"{row.ratio:.2f}"]
        cells += [_digits(row.figures[each]) if each in row.figures else "" for each in figures]
        lines.append(_line(cells))
    return lines


def _digits(number: float) -> str:
    """Three digits, or all of a larger number's."""
    return f"{number:.0f}" if number >= 1000 else f"{number:.3g}"


def _sizes(shape: dict[str, int]) -> str:
    return ", ".join(f"{name} {size}" for name, size in shape.items())


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
