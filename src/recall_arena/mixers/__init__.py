"""The mixers by name.  To add one: a file with its options and its module, and a line in MIXERS."""

from recall_arena.mixers.attention import Attention, AttentionMixer
from recall_arena.mixers.gated_delta import GatedDelta, GatedDeltaMixer
from recall_arena.mixers.mamba import Mamba, MambaMixer
from recall_arena.mixers.mixer import Mixer, MixerOptions

MIXERS: dict[str, MixerOptions] = {
    "attention": Attention(),
    "attention-rope": Attention(positions="rope"),
    "deltanet": GatedDelta(decay="none", expand=1, gate="none"),
    "gated-delta": GatedDelta(),
    "kda": GatedDelta(decay="channel", expand=1, gate="sigmoid"),
    "mamba": Mamba(),
}
"""Names, and the options that each stands for; `text.py` spells others by their differences.

Texts of layers are part of every run's address: a name that is added here must not be the shorter
way to spell what records already hold.
"""

__all__ = [
    "MIXERS",
    "Attention",
    "AttentionMixer",
    "GatedDelta",
    "GatedDeltaMixer",
    "Mamba",
    "MambaMixer",
    "Mixer",
    "MixerOptions",
]
