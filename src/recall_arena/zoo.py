"""The named models: how each is spelled, written and drawn.  Nothing here imports torch.

Colours are those of Okabe & Ito (2008), which people with any colour vision can tell apart;
each model also has a marker of its own, the same in every figure.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

Positions = Literal["none", "learned"]


@dataclass(frozen=True)
class Named:
    """A model that has a name.

    label           how people write it
    layers          its mixers, first to last, as `ModelSpec` spells them
    positions       what is added to the embedding
    colour, marker  how figures draw it
    """

    label: str
    layers: tuple[str, ...]
    positions: Positions
    colour: str
    marker: str


ZOO = {
    "transformer-learned": Named(
        "Transformer (learned)", ("attention", "attention"), "learned", "#56B4E9", "v"
    ),
    "transformer-rope": Named(
        "Transformer (RoPE)", ("attention-rope", "attention-rope"), "none", "#0072B2", "s"
    ),
    "transformer-nope": Named(
        "Transformer (NoPE)", ("attention", "attention"), "none", "#000000", "x"
    ),
    "mamba": Named("Mamba", ("mamba", "mamba"), "none", "#D55E00", "o"),
    "hybrid-a": Named("Hybrid-A", ("mamba", "attention"), "none", "#009E73", "^"),
    "hybrid-b": Named("Hybrid-B", ("mamba", "attention", "mamba"), "none", "#CC79A7", "D"),
}
"""The assignment's six models."""

RECURRENT = frozenset({"gated-delta", "mamba"})
"""The mixers that carry a state of fixed size."""

UNNAMED = Named("", (), "none", "#E69F00", "P")
"""How a model without a name is drawn."""


def name_of(layers: Sequence[str], positions: Positions) -> str:
    """The name of a model with these layers and positions, or the layers: "mamba,attention"."""
    for name, model in ZOO.items():
        if (model.layers, model.positions) == (tuple(layers), positions):
            return name
    return ",".join(layers)


def look_of(model: str) -> Named:
    """How a model of this name is written and drawn; unnamed ones are drawn alike."""
    return ZOO[model] if model in ZOO else replace(UNNAMED, label=model)


def recurrent(layers: Sequence[str]) -> bool:
    """Whether a layer carries a state of fixed size, as Mamba does."""
    return not RECURRENT.isdisjoint(layers)
