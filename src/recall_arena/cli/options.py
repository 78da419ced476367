"""Flags that several commands share; `recall runs ls` needs nothing that takes long to import."""

from pathlib import Path
from typing import Annotated

import tyro

from recall_arena.cli.command import Mistake

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
Address = Annotated[
    str, tyro.conf.Positional, tyro.conf.arg(help="the beginning of the record's address")
]
Where = Annotated[
    str, tyro.conf.arg(help="only runs such as \"task.queries == 16 and model == 'mamba'\"")
]
MOST_THREADS = 1024
LONGEST_NUMBER, LARGEST_POWER = 18, 62  # of a length and its power, so that all fit into int64
Imports = Annotated[
    tuple[str, ...],
    tyro.conf.UseAppendAction,
    tyro.conf.arg(name="import", help="a module whose tasks and mixers are meant; may be repeated"),
]
Against = Annotated[
    Path | None,
    tyro.conf.arg(
        help="a folder of published records, such as results/records, to hold the runs against as "
        "far as they go"
    ),
]
Json = Annotated[bool, tyro.conf.arg(help="print the result as JSON")]
DryRun = Annotated[bool, tyro.conf.arg(help="say what would run, and run nothing")]
Lengths = Annotated[
    str,
    tyro.conf.arg(
        name="contexts", help="the lengths to test, such as 64,128,2^20, in place of a range"
    ),
]
Jobs = Annotated[
    int | None,
    tyro.conf.arg(help="runs at work at once; the default is as many as there is room for"),
]
KeepWeights = Annotated[bool, tyro.conf.arg(help="keep each run's weights as well")]
Quiet = Annotated[bool, tyro.conf.arg(aliases=["-q"], help="no progress")]
Verbose = Annotated[bool, tyro.conf.arg(aliases=["-v"], help="name every run at the start")]


def check_threads(threads: int) -> None:
    """Raises Mistake for a number of threads that cannot be meant."""
    if not 1 <= threads <= MOST_THREADS:
        raise Mistake(f"--threads must be in 1..{MOST_THREADS}, got {threads}")


def check_jobs(jobs: int | None) -> None:
    """Raises Mistake for a number of jobs that cannot be meant."""
    if jobs is not None and jobs < 1:
        raise Mistake(f"--jobs must be at least 1, got {jobs}")


def lengths_of(text: str) -> tuple[int, ...]:
    """The lengths in "64,128,2^20"; raises Mistake for anything else."""
    try:
        return tuple(sorted({_length(word) for word in text.split(",")})) if text else ()
    except ValueError:
        raise Mistake(f"--contexts must be lengths such as 64,128,2^20, got {text!r}") from None


def _length(word: str) -> int:
    base, _, power = word.strip().partition("^")
    if len(base) > LONGEST_NUMBER or int(power or 1) > LARGEST_POWER:
        raise ValueError
    return int(base) ** int(power or 1)
