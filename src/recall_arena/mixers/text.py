"""Mixers as text: a name of MIXERS, and the options in which a mixer differs from it.

mamba          mamba(state=32, window=1)          attention-rope(heads=2, bias=True)
"""

import ast
import re
from dataclasses import fields, replace
from typing import Any

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
    if name not in MIXERS:
        raise ValueError(unknown("mixer", name, MIXERS))
    chosen, known = {}, [field.name for field in fields(MIXERS[name])]
    for each in filter(None, map(str.strip, (given or "").split(","))):
        option, equals, value = (part.strip() for part in each.partition("="))
        if option not in known:
            raise ValueError(f"{name}: {unknown('option', option, known)}")
        if not equals or option in chosen:
            raise ValueError(
                f"{name}: {each!r} is not an option and its one value, such as {option}=2"
            )
        chosen[option] = value_of(value)
    try:
        return replace(MIXERS[name], **chosen)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def write_mixer(options: MixerOptions) -> str:
    """The text of these options, the shortest that `read_mixer` reads.

    Equal options have equal texts.  Raises ValueError if no name of MIXERS is of their kind.
    """
    texts = [
        (len(different), name, different)
        for name, base in MIXERS.items()
        if type(base) is type(options)
        for different in [_differences(options, base)]
    ]
    if not texts:
        raise ValueError(f"{type(options).__name__} has no name in MIXERS")
    _, name, different = min(texts, key=lambda each: each[0])
    return name if not different else f"{name}({', '.join(different)})"


def _differences(options: MixerOptions, base: MixerOptions) -> list[str]:
    both = ((f.name, getattr(options, f.name), getattr(base, f.name)) for f in fields(base))
    return [f"{name}={value}" for name, value, usual in both if value != usual]


def value_of(text: str) -> Any:
    """A number, True, False or None; anything else is a word."""
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text
