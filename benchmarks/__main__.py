"""`python -m benchmarks`: measure the parts that are named, or all of them."""

import argparse
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from benchmarks import block, evaluation, long, machine, operations, step, threads, together
from benchmarks.report import Options, Report

PARTS: dict[str, Callable[[Options, Report], None]] = {
    "operations": operations.run,
    "block": block.run,
    "step": step.run,
    "evaluation": evaluation.run,
    "long": long.run,
    "together": together.run,
    "threads": threads.run,
}


def parser() -> argparse.ArgumentParser:
    """The command line; what its options mean stands in `Options`."""
    made = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    made.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}; or all")
    made.add_argument("--json", type=Path, help="write every measurement to this file")
    made.add_argument("--threads", type=int, default=Options.threads)
    made.add_argument("--rounds", type=int, default=Options.rounds, help="turns that are timed")
    made.add_argument("--patience", type=float, default=Options.patience, metavar="SECONDS")
    made.add_argument("--batch", type=int, default=Options.batch)
    made.add_argument("--widths", type=int, nargs="+", default=[])
    made.add_argument("--lengths", type=int, nargs="+", default=[])
    made.add_argument("--contenders", nargs="+", default=[], help="words in their names")
    made.add_argument("--stride", type=int, default=Options.stride, help="evaluation: of lengths")
    made.add_argument("--sequences", type=int, default=Options.sequences, help="evaluation")
    made.add_argument("--compile-limit", type=float, default=Options.compile_limit)
    made.add_argument("--compile-block", action="store_true", help="takes minutes")
    made.add_argument("--longest", type=int, default=Options.longest, help="long: log2 of tokens")
    made.add_argument("--seconds-limit", type=float, default=Options.seconds_limit)
    made.add_argument("--memory-limit", type=float, default=Options.memory_limit, metavar="MIB")
    return made


def chosen(words: list[str] | None = None) -> tuple[list[str], Options, Path | None]:
    """The parts, options and file that the command line asks for; exits if it asks nonsense."""
    commands = parser()
    given = vars(commands.parse_args(words))
    parts, path = given.pop("parts"), given.pop("json")
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        commands.error(f"no part {unknown[0]!r}; the parts are {', '.join(PARTS)}")
    for name, least in (("rounds", 2), ("threads", 1), ("batch", 1), ("stride", 1)):
        if given[name] < least:
            commands.error(f"--{name} must be at least {least}, got {given[name]}")
    values: dict[str, Any] = {
        field.name: tuple(given[field.name])
        if isinstance(given[field.name], list)
        else given[field.name]
        for field in fields(Options)
    }
    return parts or list(PARTS), Options(**values), path


def main() -> None:
    parts, options, path = chosen()
    machine.confine(options.threads)
    report, facts = Report(), machine.describe()
    for part in parts:
        PARTS[part](options, report)
        print(f"## {part}\n\n{machine.sentence(options.threads)}\n")
        print("\n".join(report.tables(part)), flush=True)
        if path is not None:  # after each part, so that an interrupted run leaves what it has
            report.write(path, facts, options)


if __name__ == "__main__":
    main()
