"""What a command's words mean before its flags are known: modules to import, empty paths.

The modules that `--import` names add tasks, mixers or studies when they are imported.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from itertools import pairwise
from pathlib import Path

from recall_arena.cli.command import Mistake

FLAG = "--import"


def import_named(words: Sequence[str]) -> None:
    """Import what the words name, before they decide which tasks and mixers there are.

    Raises Mistake for a module that is not found, also in the current folder, or not to be used.
    """
    for name in values_of(FLAG, words):
        import_from_here(name)


def import_from_here(name: str) -> None:
    """Import a module; the current folder comes after all other places.

    Raises Mistake if there is none, or if what it adds does not belong.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        import_module(name)
    except (ImportError, SyntaxError, TypeError, ValueError) as error:
        raise Mistake(f"{name} cannot be imported: {error}") from None


def check_folders(words: Sequence[str]) -> None:
    """Raises Mistake for an empty path, which would stand for the current folder."""
    for flag in ("--store", "--out", "--write", "--weights"):
        if "" in values_of(flag, words):
            raise Mistake(f"{flag} is empty; name a place")


def separated(values: str) -> list[str]:
    """The values of a grid's field: between bars where there is one, else between commas."""
    return values.split("|" if "|" in values else ",")


def values_of(flag: str, words: Sequence[str]) -> list[str]:
    """What follows a flag among the words of a command, in either of its spellings."""
    return [
        *(word for before, word in pairwise(words) if before == flag),
        *(word.removeprefix(f"{flag}=") for word in words if word.startswith(f"{flag}=")),
    ]
