"""What a model is, as a value and as text.

A model is spelled by its mixers: "mamba, attention" is the whole difference between Hybrid-A and
Mamba.  The rest stands behind semicolons: "hybrid-a; norm=rms; mlp=gelu".
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from recall_arena.config import added, frozen
from recall_arena.mixers import MIXERS, MixerOptions
from recall_arena.mixers.text import read_mixer, split_layers, value_of, write_mixer
from recall_arena.names import unknown
from recall_arena.zoo import SETTINGS, ZOO, Positions

NormKind = Literal["layer", "rms"]
MLPKind = Literal["none", "gelu", "swiglu"]
EmbeddingKind = Literal["unit", "trained"]


def _texts(layers: object) -> object:
    """Mixers, as options or in any spelling, in the one spelling that records have."""
    if not isinstance(layers, list | tuple):
        return layers
    return tuple(
        write_mixer(read_mixer(each) if isinstance(each, str) else each)
        if isinstance(each, str | MixerOptions)
        else each
        for each in layers
    )


@frozen
class ModelSpec:
    """Everything that decides a model's function, but its weights.

    Mixers are given as options or as text, ("mamba(state=32)", Attention(heads=2)), and kept as
    text, each spelled in one way; `mixers` has their options.

    Attributes:
        layers: the mixers, first to last
        vocabulary: K, how many tokens there are
        width: d, the numbers in an embedding and in the residual stream
        positions: "learned": one trained vector for each of max_length positions is added to the
            embedding; "sinusoidal": a fixed one (arXiv:1706.03762, section 3.5)
        max_length: how many positions have a learned vector; those that training never reaches
            keep their first, random vector
        norm: before each mixer, before each MLP and before the readout
        mlp: what follows each mixer, in a residual block of its own; "swiglu" is arXiv:2002.05202's
        mlp_expand: hidden numbers of an MLP, as a multiple of the width
        embedding: "unit": the assignment's, rows of length 1 that are never trained; "trained"

    Raises:
        ValueError: for an unknown mixer or option, one that cannot have this width, no layers,
            learned positions without max_length, or an mlp_expand without an MLP
    """

    layers: Annotated[tuple[str | MixerOptions, ...], BeforeValidator(_texts)]
    vocabulary: int = 16
    width: int = 8
    positions: Positions = "none"
    max_length: int | None = None
    norm: NormKind = added(default="layer")
    mlp: MLPKind = added(default="none")
    mlp_expand: int = added(default=4)
    embedding: EmbeddingKind = added(default="unit")

    def __post_init__(self) -> None:
        if not self.layers:
            raise ValueError("layers must name at least one mixer")
        for name, least in (("vocabulary", 2), ("width", 1), ("mlp_expand", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if (self.positions == "learned") != (self.max_length is not None):
            raise ValueError("learned positions need max_length, and nothing else takes it")
        if self.mlp == "none" and self.mlp_expand != 4:
            raise ValueError(f"mlp_expand is of an MLP, and mlp is none; got {self.mlp_expand}")
        for options in self.mixers:
            options.check(self.width)

    @property
    def mixers(self) -> tuple[MixerOptions, ...]:
        """The layers as options."""
        return tuple(read_mixer(str(text)) for text in self.layers)


def named(
    name: str, *, width: int = 8, vocabulary: int = 16, longest_context: int = 192
) -> ModelSpec:
    """A model from its text: a name of `zoo.py`, or any stack of mixers; then settings, if any.

        hybrid-a        mamba(state=32, window=1), attention-rope(heads=2); norm=rms; mlp=gelu

    `longest_context` is the longest context that learned positions have a vector for; the
    query behind it takes one more.  Raises ValueError for a name that does not exist, or a value
    that is not allowed.
    """
    layers, settings = read_model(name)
    return of_layers(
        layers, settings, width=width, vocabulary=vocabulary, longest_context=longest_context
    )


def read_model(text: str) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The texts of a model's layers, and its settings, as `named` takes them.

    Raises ValueError for a name that does not exist, or what is no setting.
    """
    stack, *settings = (each.strip() for each in text.split(";"))
    chosen = dict(map(_setting, settings))
    if stack in ZOO:
        return ZOO[stack].layers, {"positions": ZOO[stack].positions} | chosen
    layers = tuple(split_layers(stack))
    first = layers[0].partition("(")[0]
    if len(layers) == 1 and first not in MIXERS and first not in (known := MIXERS.names()):
        raise ValueError(unknown("model", first, (*ZOO, *known)))
    return layers, chosen


def of_layers(
    layers: tuple[str | MixerOptions, ...],
    settings: Mapping[str, Any],
    *,
    width: int,
    vocabulary: int,
    longest_context: int,
) -> ModelSpec:
    """The model of these layers and settings; learned positions reach as far as they must."""
    reach = longest_context + 1 if settings.get("positions") == "learned" else None
    return ModelSpec(layers, vocabulary, width, max_length=reach, **settings)


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = (part.strip() for part in text.partition("="))
    if name not in SETTINGS:
        raise ValueError(unknown("setting of a model", name, SETTINGS))
    if not equals:
        raise ValueError(f"{name} needs a value, such as {name}=...")
    return name, value_of(value)
