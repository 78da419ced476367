"""A grid over the fields of a run, as text: "rate=1e-3,3e-3", "model=mamba|mamba, attention"."""

import itertools
from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

from recall_arena.cli.command import Mistake
from recall_arena.cli.described import Described
from recall_arena.cli.importing import separated
from recall_arena.mixers.text import value_of
from recall_arena.names import unknown

PARTS = ("model", "width", "task", "schedule", "checks", "contexts", "seed")

Point = dict[str, Any]
"""A value for each varied field, by its full name, such as schedule.rate."""


def points_of(described: Described, texts: Sequence[str]) -> list[Point]:
    """Every combination of the values, the last field's changing first.

    A field is called in full or by its last word, where only one is called so; options of mixers
    give way to other fields.  Values stand
    between commas, or between bars where there is one.  Raises Mistake for anything else.
    """
    if not texts:
        raise Mistake("--grid says what varies, such as --grid rate=1e-3,3e-3 --grid seed=0,1")
    axes: dict[str, list[Any]] = {}
    known = [*_paths(described)]
    of_model = described.of_model.paths()
    own = [name for name in known if name not in of_model]
    for text in texts:
        name, equals, values = text.partition("=")
        of_run = any(_same(name.strip(), each.rpartition(".")[2]) for each in own)
        field = field_named(name.strip(), own if of_run else known, "field of a run")
        texts_of = separated(values)
        if not equals or not all(map(str.strip, texts_of)):
            raise Mistake(f"--grid must be a field and its values, such as rate=1e-3,3e-3: {text}")
        if field in axes:
            raise Mistake(f"--grid names {field} twice")
        read = [each.strip() if field == "model" else value_of(each.strip()) for each in texts_of]
        axes[field] = list(dict.fromkeys(read))
    return [dict(zip(axes, each, strict=True)) for each in itertools.product(*axes.values())]


def at_point(described: Described, point: Point) -> Described:
    """The command with these values; raises Mistake for one that a field cannot have."""
    paths = _paths(described)
    try:
        for name, value in point.items():
            described = _with(described, paths[name], value)
    except ValueError as error:
        raise Mistake(str(error)) from None
    return described


def _paths(described: Described) -> dict[str, list[str]]:
    """Where each field of a run is, by its name; those of the model's mixers come last."""
    own = _leaves({part: getattr(described, part) for part in PARTS})
    of_model = described.of_model.paths()
    return {name: name.split(".") for name in own} | {
        name: ["of_model", *path] for name, path in of_model.items()
    }


def _with(owner: Any, path: list[str], value: Any) -> Any:
    first, *rest = path
    if not rest and type(getattr(owner, first)) is int and type(value) is not int:
        raise ValueError(f"{first} must be a whole number, got {value!r}")
    inner = _with(getattr(owner, first), rest, value) if rest else value
    return replace(owner, **{first: inner})


def _leaves(values: dict[str, Any], begin: str = "") -> list[str]:
    """The full names of all fields that are no dataclass themselves."""
    names = []
    for name, value in values.items():
        if is_dataclass(value):
            own = {field.name: getattr(value, field.name) for field in fields(value)}
            names += _leaves(own, f"{begin}{name}.")
        else:
            names.append(begin + name)
    return names


def field_named(name: str, known: list[str], kind: str) -> str:
    """The full name that is meant; raises Mistake if there is none, or more than one."""
    exact = [each for each in known if _same(name, each)]
    found = exact or [each for each in known if _same(name, each.rpartition(".")[2])]
    if len(found) == 1:
        return found[0]
    if found:
        raise Mistake(f"{name} may be {' or '.join(found)}")
    last = [each.rpartition(".")[2] for each in known]
    short = [
        word if last.count(word) == 1 else each for word, each in zip(last, known, strict=True)
    ]
    raise Mistake(unknown(kind, name, short))


def _same(name: str, other: str) -> bool:
    """Whether two names differ in nothing but - for _, as flags have it."""
    return name.replace("-", "_") == other.replace("-", "_")
