"""The mixers by name.  To add one: a file with its options and its module, and a line in MIXERS.

Other packages add theirs by an entry point of the group recall_arena.mixers that names the class
of options, or by MIXERS["name"] = Options(), in a module that is imported.
"""

from recall_arena.config import has_defaults
from recall_arena.mixers.attention import Attention, AttentionMixer
from recall_arena.mixers.gated_delta import GatedDelta, GatedDeltaMixer
from recall_arena.mixers.mamba import Mamba, MambaMixer
from recall_arena.mixers.mixer import Mixer, MixerOptions
from recall_arena.registry import Registry, kind_of
from recall_arena.zoo import ZOO

_OWN: dict[str, MixerOptions] = {
    "attention": Attention(),
    "attention-rope": Attention(positions="rope"),
    "deltanet": GatedDelta(decay="none", expand=1, gate="none"),
    "gated-delta": GatedDelta(),
    "kda": GatedDelta(decay="channel", expand=1, gate="sigmoid"),
    "mamba": Mamba(),
}


def _checked(name: str, value: object) -> MixerOptions:
    """What a name from outside stands for: a class of options, with its defaults."""
    kind = kind_of(value)
    if not issubclass(kind, MixerOptions) or not has_defaults(kind):
        raise ValueError(
            f"mixer {name!r}: {kind.__name__} must inherit MixerOptions, be decorated with "
            "recall_arena.config.frozen, define build, and have a default for every option"
        )
    if name in ZOO:
        raise ValueError(f"mixer {name!r} has the name of a model")
    options: MixerOptions = kind()
    if not isinstance(value, type) and value != options:
        raise ValueError(f"mixer {name!r} must stand for {kind.__name__} with all its defaults")
    return options


MIXERS: Registry[MixerOptions] = Registry("mixer", "recall_arena.mixers", _checked, _OWN)
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
