"""The named models: how each is spelled, written and drawn.  Nothing here imports torch.

Colours are those of Okabe & Ito (2008), which people with any colour vision can tell apart;
each model also has a marker of its own, the same in every figure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

Positions = Literal["none", "learned", "sinusoidal"]


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

RECURRENT = frozenset({"deltanet", "gated-delta", "kda", "mamba"})
"""The mixers that carry a state of fixed size."""

UNNAMED = Named("", (), "none", "#E69F00", "P")
"""How a model without a name is drawn."""


SETTINGS = ("positions", "norm", "mlp", "mlp_expand", "embedding")
"""What a model's text may say beside its layers; a model's JSON has the last four where they are
not the usual ones."""


def name_of(model: Mapping[str, Any]) -> str:
    """The text of a model, from its JSON: "hybrid-a", "mamba,attention; norm=rms".

    `spec.named` reads it back.
    """
    layers, positions = tuple(model["layers"]), model["positions"]
    said = {name: model[name] for name in SETTINGS if name in model}
    text = ",".join(layers)
    for name, known in ZOO.items():
        if (known.layers, known.positions) == (layers, positions):
            text = name
            del said["positions"]
    if said.get("positions") == "none":
        del said["positions"]
    return "; ".join([text, *(f"{name}={value}" for name, value in said.items())])


def look_of(model: str) -> Named:
    """How a model of this name is written and drawn; unnamed ones are drawn alike."""
    return ZOO[model] if model in ZOO else replace(UNNAMED, label=model)


def recurrent(layers: Sequence[str]) -> bool:
    """Whether a layer carries a state of fixed size, as Mamba does."""
    return not RECURRENT.isdisjoint(layer.partition("(")[0] for layer in layers)
