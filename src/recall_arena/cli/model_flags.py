"""Flags for what a model's text may say as well: `--mamba.state 32`, `--model.norm rms`.

Their values are read as the text's are, so that rules and messages are the same; "" is as the text
says.  A mixer has flags, by the name that the text has for it, if the command names a model with
a layer of it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, make_dataclass, replace
from typing import Annotated, Any, ClassVar, get_type_hints

import tyro

from recall_arena.cli.command import Command, Mistake
from recall_arena.cli.explained import fields_of
from recall_arena.cli.importing import separated, values_of
from recall_arena.mixers import MixerOptions
from recall_arena.mixers.text import read_mixer, value_of
from recall_arena.spec import ModelSpec, read_model
from recall_arena.zoo import SETTINGS


def _texts(kind: type, names: Iterable[str]) -> type:
    """A dataclass of texts, one for each of these fields of a class."""
    explained = fields_of(kind)
    flags = []
    for name in names:
        usual, about = explained.get(
            name, ("as it says", "an option that its class does not explain")
        )
        said = tyro.conf.arg(
            help=about, metavar="VALUE", help_behavior_hint=f"(as --model says, usually {usual})"
        )
        flags.append((name, Annotated[str, said], field(default="")))
    return make_dataclass(kind.__name__, flags, frozen=True)


_Settings = _texts(ModelSpec, SETTINGS)


@dataclass(frozen=True)
class ModelFlags:
    """The flags of a model's settings; a subclass has those of mixers as well."""

    settings: Annotated[_Settings, tyro.conf.arg(name="model", help="settings of the model")] = (  # type: ignore[valid-type]
        field(default_factory=_Settings)
    )
    parts: ClassVar[Mapping[str, str]] = {"model": "settings"}
    """The field that holds the flags of each part of a model."""

    def paths(self) -> dict[str, tuple[str, str]]:
        """Where each flag's value is, by its name: mamba.state, model.norm."""
        return {
            f"{part}.{each.name}": (owner, each.name)
            for part, owner in self.parts.items()
            for each in fields(getattr(self, owner))
        }

    def given(self, part: str) -> dict[str, Any]:
        """What the flags of a part say."""
        own = vars(getattr(self, self.parts[part]))
        return {n: value_of(v) if isinstance(v, str) else v for n, v in own.items() if v != ""}


def with_flags(command: type[Command], words: Sequence[str]) -> type[Command]:
    """The command with flags for the mixers of the models that its words name.

    Raises Mistake for a flag without a value.
    """
    taken = {*get_type_hints(command)}  # a mixer may be called as a field is
    kinds = {
        name: kind
        for text in _models(words, command)
        for name, kind in _mixers(text)
        if name not in taken
    }
    owners = {name: f"mixer_{number}" for number, name in enumerate(kinds)}
    parts = [
        (
            owners[name],
            Annotated[made, tyro.conf.arg(name=name, help=f"options of each layer {name}")],
            field(default_factory=made),
        )
        for name, kind in kinds.items()
        for made in [_texts(kind, (each.name for each in fields(kind)))]
    ]
    flags = make_dataclass("ModelFlags", parts, bases=(ModelFlags,), frozen=True)
    flags.parts = {**ModelFlags.parts, **owners}  # type: ignore[attr-defined]
    _check_given(flags(), words)
    option = ("of_model", Annotated[flags, tyro.conf.arg(name="")], field(default_factory=flags))
    made = make_dataclass(command.__name__, [option], bases=(command,), frozen=True)
    made.__doc__ = command.__doc__
    return made


def _check_given(flags: ModelFlags, words: Sequence[str]) -> None:
    for name in flags.paths():
        for flag in {f"--{name}", f"--{name.replace('_', '-')}"}:
            if "" in values_of(flag, words):
                raise Mistake(f"{flag} is empty; give it a value")


def _models(words: Sequence[str], command: type[Command]) -> Iterator[str]:
    """The texts of all models that are named, also in a grid; the usual one if there is none."""
    said = values_of("--model", words)
    for axis in values_of("--grid", words):
        name, _, values = axis.partition("=")
        if name.strip() == "model":
            said += separated(values)
    yield from said or [getattr(command, "model", "")]


def _mixers(text: str) -> Iterator[tuple[str, type[MixerOptions]]]:
    """The name of each of a model's layers that can be read, and its options' class."""
    with suppress(ValueError):
        for layer in read_model(text.strip())[0]:
            with suppress(ValueError):
                yield name_of(layer), type(read_mixer(layer))


def name_of(layer: str) -> str:
    """The mixer's name in a layer's text."""
    return layer.partition("(")[0].strip()


def with_given(layers: Sequence[str], flags: ModelFlags) -> tuple[str | MixerOptions, ...]:
    """The layers with what their flags say.

    Raises ValueError for a value that is not allowed, and for options of mixers that are not there.
    """
    names = [name_of(layer) for layer in layers]
    given = {part: flags.given(part) for part in flags.parts if part != "model"}
    for part, values in given.items():
        if values and part not in names:
            raise ValueError(f"{part}.{next(iter(values))} is given, and the model has no {part}")
    return tuple(
        _changed(layer, name, given[name]) if given.get(name) else layer
        for layer, name in zip(layers, names, strict=True)
    )


def _changed(layer: str, name: str, values: dict[str, Any]) -> MixerOptions:
    options = read_mixer(layer)
    try:
        return replace(options, **values)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
