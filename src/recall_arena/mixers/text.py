"""Mixers as text: a name of MIXERS, and the options in which a mixer differs from it.

mamba          mamba(state=32, window=1)          attention-rope(heads=2, bias=True)
"""

import ast
import re
from dataclasses import fields, replace
from typing import Any
from warnings import catch_warnings

from recall_arena.mixers import MIXERS, MixerOptions
from recall_arena.names import unknown

_LAYER = re.compile(r"\s*([^\s,()]+)\s*(?:\(([^()]*)\))?\s*")


def split_layers(text: str) -> list[str]:
    """The layers of a stack: "mamba(state=32, window=1), attention" has two.

    Raises ValueError where the text is not a list of names, each with options or without.
    """
    layers, at = [], 0
    while True:
        found = _LAYER.match(text, at)
        if found is None or (found.end() < len(text) and text[found.end()] != ","):
            raise ValueError(
                f"{text!r} is not a list of mixers such as mamba(state=32), attention-rope"
            )
        layers.append(found.group().strip())
        if found.end() == len(text):
            return layers
        at = found.end() + 1


def read_mixer(text: str) -> MixerOptions:
    """The options that a text stands for.

    Raises ValueError for an unknown name or option, or for a value that is not allowed.
    """
    found = _LAYER.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not a mixer such as mamba or mamba(state=32)")
    name, given = found.groups()
    usual = MIXERS.find(name)
    chosen, known = {}, [field.name for field in fields(usual)]
    for each in filter(None, map(str.strip, (given or "").split(","))):
        option, equals, value = (part.strip() for part in each.partition("="))
        if option not in known:
            raise ValueError(f"{name}: {unknown('option', option, known)}")
        if option in chosen:
            raise ValueError(f"{name}: the option {option} is given twice")
        if not equals:
            raise ValueError(
                f"{name}: {each!r} is not an option and its one value, such as {option}=2"
            )
        chosen[option] = value_of(value)
    try:
        return replace(usual, **chosen)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def write_mixer(options: MixerOptions) -> str:
    """The text of these options, the shortest that `read_mixer` reads.

    Equal options have equal texts.  Raises ValueError if no name of MIXERS is of their kind, or if
    a value of theirs is no number, truth value, None or plain word.
    """
    names = MIXERS.names_of(type(options))
    texts = [(_differences(options, MIXERS[name]), name) for name in names]
    different, name = min(texts, key=lambda each: len(each[0]))
    text = name if not different else f"{name}({', '.join(different)})"
    if different and not _reads_as(text, options):
        raise ValueError(f"{text} would not be read as what it was: options are numbers or words")
    return text


def _reads_as(text: str, options: MixerOptions) -> bool:
    try:
        return read_mixer(text) == options
    except ValueError:
        return False


def _differences(options: MixerOptions, base: MixerOptions) -> list[str]:
    both = ((f.name, getattr(options, f.name), getattr(base, f.name)) for f in fields(base))
    return [f"{name}={value}" for name, value, usual in both if value != usual]


def value_of(text: str) -> Any:
    """A number, True, False, None or a tuple of such; anything else is a word."""
    try:
        with catch_warnings(action="ignore"):
            value = ast.literal_eval(text)
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        return text
    parts = value if isinstance(value, tuple) else (value,)
    plain = all(each is None or isinstance(each, int | float | str) for each in parts)
    return value if plain else text
