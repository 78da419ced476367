"""Flags for what a model's text may say as well: `--mamba.state 32`, `--model.norm rms`.

Their values are read as the text's are, so that rules and messages are the same; "" is as the text
says.  A mixer has flags if the command names a model that has a layer of it.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, make_dataclass, replace
from typing import Annotated, Any

import tyro

from recall_arena.cli.command import Command
from recall_arena.cli.explained import fields_of
from recall_arena.cli.importing import values_of
from recall_arena.mixers import MIXERS, MixerOptions
from recall_arena.mixers.text import value_of
from recall_arena.spec import ModelSpec, named
from recall_arena.zoo import SETTINGS


def _flags(name: str, kind: type, names: Iterable[str]) -> type:
    """A dataclass of texts, one for each of these fields of a class."""
    known = fields_of(kind)
    explained = [
        (
            each,
            Annotated[
                str,
                tyro.conf.arg(
                    help=known[each][1],
                    metavar="VALUE",
                    help_behavior_hint=f"(as --model says, usually {known[each][0]})",
                ),
            ],
            field(default=""),
        )
        for each in names
    ]
    return make_dataclass(name, explained, frozen=True)


Settings = _flags("Settings", ModelSpec, SETTINGS)


@dataclass(frozen=True)
class ModelFlags:
    """The flags of a model's settings; a subclass has those of mixers, by their names."""

    model: Annotated[Settings, tyro.conf.arg(help="settings of the model")] = field(  # type: ignore[valid-type]
        default_factory=Settings
    )


def with_flags(command: type[Command], words: Sequence[str]) -> type[Command]:
    """The command with flags for the mixers of the models that its words name."""
    kinds = {name: kind for text in _models(words, command) for name, kind in _mixers(text)}
    parts = [
        (
            name.replace("-", "_"),
            Annotated[made, tyro.conf.arg(name=name, help=f"options of each {kind.__name__}")],
            field(default_factory=made),
        )
        for name, kind in kinds.items()
        for made in [_flags(kind.__name__, kind, fields_of(kind))]
    ]
    flags = make_dataclass("ModelFlags", parts, bases=(ModelFlags,), frozen=True)
    option = ("options", Annotated[flags, tyro.conf.arg(name="")], field(default_factory=flags))
    made = make_dataclass(command.__name__, [option], bases=(command,), frozen=True)
    made.__doc__ = command.__doc__
    return made


def _models(words: Sequence[str], command: type[Command]) -> Iterator[str]:
    """The texts of all models that are named, also in a grid; the usual one if there is none."""
    said = values_of("--model", words)
    for axis in values_of("--grid", words):
        name, _, values = axis.partition("=")
        if name.strip() == "model":
            said += values.split("|" if "|" in values else ",")
    yield from said or [getattr(command, "model", "")]


def _mixers(text: str) -> Iterator[tuple[str, type[MixerOptions]]]:
    """The classes of a model's mixers with their names; none if it cannot be read."""
    with suppress(ValueError):
        for options in named(text.strip()).mixers:
            yield _name(type(options)), type(options)


def _name(kind: type[MixerOptions]) -> str:
    """The name that stands for the class's defaults, or its first one."""
    names = MIXERS.names_of(kind)
    return next((each for each in names if MIXERS[each] == kind()), names[0])


def changed(spec: ModelSpec, flags: ModelFlags, longest_context: int) -> ModelSpec:
    """The model with what its flags say.

    Raises ValueError for a value that is not allowed, and for options of mixers that it lacks.
    """
    given = {each.name: _given(getattr(flags, each.name)) for each in dataclasses.fields(flags)}
    settings = given.pop("model")
    layers = spec.mixers
    for part, values in given.items():
        kinds = [_name(type(each)).replace("-", "_") for each in layers]
        if values and part not in kinds:
            raise ValueError(
                f"{part}.{next(iter(values))} is given, and the model has no such layer"
            )
        layers = tuple(
            _with(each, values) if kind == part else each
            for each, kind in zip(layers, kinds, strict=True)
        )
    if "positions" in settings:
        settings["max_length"] = longest_context + 1 if settings["positions"] == "learned" else None
    return replace(spec, layers=layers, **settings)


def _given(flags: Any) -> dict[str, Any]:
    both = ((each.name, getattr(flags, each.name)) for each in dataclasses.fields(flags))
    return {n: value_of(v) if isinstance(v, str) else v for n, v in both if v != ""}


def _with(options: MixerOptions, values: dict[str, Any]) -> MixerOptions:
    try:
        return replace(options, **values)
    except ValueError as error:
        raise ValueError(f"{_name(type(options))}: {error}") from None
