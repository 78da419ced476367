"""Flags that several commands share."""

from pathlib import Path
from typing import Annotated

import tyro

from recall_arena.cli.command import Mistake
from recall_arena.names import unknown
from recall_arena.studies import STUDIES, Plan, Study

StoreFolder = Annotated[Path, tyro.conf.arg(help="the folder of the records")]
Out = Annotated[Path, tyro.conf.arg(help="the folder of the report")]
StudyName = Annotated[
    str, tyro.conf.Positional, tyro.conf.arg(help="one that `recall study ls` lists")
]
Scale = Annotated[str, tyro.conf.arg(help="how much is spent; `recall study ls` lists the scales")]
Parts = Annotated[
    tuple[int, ...], tyro.conf.arg(help="only these problems of the study, such as 1 3")
]
Seeds = Annotated[int | None, tyro.conf.arg(help="seeds a setting; the default is the scale's")]
Json = Annotated[bool, tyro.conf.arg(help="print the result as JSON")]
DryRun = Annotated[bool, tyro.conf.arg(help="say what would run, and run nothing")]
Lengths = Annotated[
    str,
    tyro.conf.arg(
        name="contexts", help="the lengths to test, such as 64,128,2^20, in place of a range"
    ),
]
Quiet = Annotated[bool, tyro.conf.arg(aliases=["-q"], help="no progress")]
Verbose = Annotated[bool, tyro.conf.arg(aliases=["-v"], help="name every run at the start")]


def lengths_of(text: str) -> tuple[int, ...]:
    """The lengths in "64,128,2^20"; raises Mistake for anything else."""
    powers = [word.strip().split("^") for word in text.split(",")] if text else []
    try:
        return tuple(sorted({int(base) ** int(*(power or "1")) for base, *power in powers}))
    except (TypeError, ValueError):
        raise Mistake(f"--contexts must be lengths such as 64,128,2^20, got {text!r}") from None


def study_named(name: str) -> Study:
    """Raises Mistake if there is no such study."""
    if name not in STUDIES:
        raise Mistake(unknown("study", name, STUDIES))
    return STUDIES[name]


def plan_of(study: Study, scale: str, parts: tuple[int, ...], seeds: int | None) -> Plan:
    """Raises Mistake for a scale or a problem that the study lacks, or no seeds."""
    if scale not in study.scales:
        raise Mistake(unknown("scale", scale, study.scales))
    for part in parts:
        if part not in study.parts:
            raise Mistake(f"no problem {part}. There are: {', '.join(map(str, study.parts))}")
    if seeds is not None and seeds < 1:
        raise Mistake(f"--seeds must be at least 1, got {seeds}")
    chosen = tuple(part for part in study.parts if not parts or part in parts)
    return Plan(scale, chosen, seeds or study.seeds[scale])
