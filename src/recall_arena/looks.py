"""How the values of a column are drawn: each its own colour and marker, the same throughout.

Named models have those of `zoo.py`; other models, and values of other columns, get theirs in
their order among what is drawn together.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from recall_arena.wording import name_of_value
from recall_arena.zoo import UNNAMED, ZOO, Named

COLOURS = (
    *("#E69F00", "#882255", "#44AA99", "#332288", "#999933"),
    *("#AA4499", "#661100", "#6699CC", "#117733", "#CC6677", "#888888"),
)
"""Okabe and Ito's orange, then Paul Tol's muted scheme (2021) where the zoo has none of it."""

MARKERS = ("P", "*", "X", "h", "p", "<", ">", "d", "H", "8")


def looks_of(column: str, values: Sequence[Any]) -> dict[Any, Named]:
    """A look for each value; no two of up to 110 have the same colour and marker."""
    named = [value for value in values if column == "model" and value in ZOO]
    looks = {name: ZOO[name] for name in named}
    for number, value in enumerate(value for value in values if value not in looks):
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        label = name_of_value(column, value)
        looks[value] = replace(UNNAMED, label=label, colour=colour, marker=marker)
    return looks
