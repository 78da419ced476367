"""The named models: how each is spelled, written and drawn.  Nothing here imports torch.

Colours are those of Okabe & Ito (2008), which people with any colour vision can tell apart;
each model also has a marker of its own, the same in every figure.
"""

from dataclasses import dataclass
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

    @property
    def recurrent(self) -> bool:
        """Whether a layer carries a state of fixed size, as Mamba does."""
        return "mamba" in self.layers


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

UNNAMED = Named("", (), "none", "#E69F00", "P")
"""How a model without a name is drawn."""
