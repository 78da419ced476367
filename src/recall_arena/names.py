"""Errors about names: what was given, what is allowed, and the nearest name that is."""

import difflib
from collections.abc import Iterable


def unknown(kind: str, given: str, allowed: Iterable[str]) -> str:
    """The message for a name that does not exist: «no mixer 'mambo'; did you mean 'mamba'? …»."""
    known = list(allowed)
    near = difflib.get_close_matches(given.lower(), known, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return f"no {kind} {given!r}{hint} There are: {', '.join(known)}"


def package_of(module: str) -> str:
    """The package that a module is in, by the first word of its name."""
    return module.partition(".")[0]
