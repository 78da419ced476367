"""`python -m benchmarks`: measure the parts that are named, or all of them."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, get_args

import tyro

from benchmarks import block, evaluation, long, machine, operations, rows, step, threads
from benchmarks.options import Options
from benchmarks.report import Report
from benchmarks.tables import described, tables

Part = Literal["operations", "block", "step", "evaluation", "long", "threads"]

PARTS: dict[Part, Callable[[Options, Report], None]] = {
    "operations": operations.run,
    "block": block.run,
    "step": step.run,
    "evaluation": evaluation.run,
    "long": long.run,
    "threads": threads.run,
}


@dataclass(frozen=True)
class Benchmarks:
    """Measure kernels, blocks, steps, evaluation and long sequences beside other people's."""

    parts: Annotated[tuple[Part, ...], tyro.conf.Positional] = ()
    """which of them; none for all"""
    rows: Path | None = None
    """add every measurement to this file, one a line"""
    machine: str = field(default_factory=machine.name)
    """what the rows call this machine"""
    options: Annotated[Options, tyro.conf.arg(name="")] = field(default_factory=Options)


def chosen(words: list[str] | None = None) -> Benchmarks:
    """What the command line asks for; exits with status 2 if it asks nonsense."""
    try:
        return tyro.cli(
            Benchmarks,
            prog="python -m benchmarks",
            args=words,
            config=(tyro.conf.FlagCreatePairsOff,),
        )
    except ValueError as mistake:
        print(mistake, file=sys.stderr)
        sys.exit(2)


def main() -> None:
    asked = chosen()
    machine.confine(asked.options.threads)
    report, origin = Report(asked.options.threads), machine.origin(asked.machine)
    for part in asked.parts or get_args(Part):
        PARTS[part](asked.options, report)
        print(f"## {part}\n\n{origin.machine}, {asked.options.threads} thread(s); ", end="")
        print(f"{described(origin)}\n\n" + "\n".join(tables(report.of(part))), flush=True)
        if asked.rows is not None:  # after each part, so that an interrupted run leaves what it has
            rows.add(asked.rows, origin, report.of(part))


if __name__ == "__main__":
    main()
