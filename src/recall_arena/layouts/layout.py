"""What a layout is: how a library spells a model's options and names its weights."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from recall_arena.config import read
from recall_arena.mixers import Mamba, MixerOptions
from recall_arena.mixers.mamba import usual_rank
from recall_arena.mixers.text import write_mixer
from recall_arena.spec import ModelSpec

Kind = TypeVar("Kind", bound=MixerOptions)
T = TypeVar("T")

EPSILON = 1e-5
"""Of the norms, here as there."""


@dataclass(frozen=True)
class Layout:
    """A library's folder of one model.

    file        what the weights are in, beside config.json
    embedding   the name of the embedding's weight; all others are named alike
    read        from its config the model, and whether its readout is its embedding; raises
                ValueError for what a `ModelSpec` does not have
    write       the config of a model; raises ValueError for what it cannot express
    """

    file: str
    embedding: str
    read: Callable[[dict[str, Any]], tuple[ModelSpec, bool]]
    write: Callable[[ModelSpec], dict[str, Any]]


def read_known(cls: type[T], config: dict[str, Any]) -> T:
    """A frozen class from those values of a config that it has fields for; ValueError as `read`."""
    names = {field.name for field in fields(cls)}  # type: ignore[arg-type]
    return read(cls, {name: value for name, value in config.items() if name in names})


def the_one(options: Sequence[Kind], kind: str) -> Kind:
    """The options that all layers of a kind have in common, since a config holds one set of them.

    Raises ValueError if they differ.
    """
    texts = sorted(set(map(write_mixer, options)))
    if len(texts) > 1:
        raise ValueError(f"{kind} has one set of options for all layers; got {', '.join(texts)}")
    return options[0]


def shared(mamba: Mamba, width: int) -> Mamba:
    """What both sides know of these options: not how training starts, the usual rank unsaid.

    Raises ValueError for a window of 1, which here is no convolution and there a filter of one
    number a channel.
    """
    if mamba.window == 1:
        raise ValueError("a window of 1: here nothing is convolved then, there each channel scaled")
    rank = None if mamba.rank == usual_rank(width) else mamba.rank
    return replace(mamba, rank=rank, A_log_offset=0.0, dt_offset=0.0)
