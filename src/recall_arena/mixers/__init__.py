"""The mixers by name.  To add one: a file with a Mixer, and its line in MIXERS."""

from collections.abc import Callable
from functools import partial

from recall_arena.mixers.attention import Attention
from recall_arena.mixers.gated_delta import GatedDelta
from recall_arena.mixers.mamba import Mamba
from recall_arena.mixers.mixer import Mixer

MIXERS: dict[str, Callable[[int], Mixer]] = {
    "attention": Attention,
    "attention-rope": partial(Attention, rotary=True),
    "gated-delta": GatedDelta,
    "mamba": Mamba,
}

__all__ = ["MIXERS", "Attention", "GatedDelta", "Mamba", "Mixer"]
