"""Length is an argument: nothing in a mixer fixes it."""

from torch import nn

from recall_arena.battery.probe import Broken, normal, outputs

LENGTHS = (1, 2, 63, 192)


def any_length_has_finite_outputs(mixer: nn.Module, width: int) -> str:
    """From one token on."""
    for length in LENGTHS:
        infinite = int((~outputs(mixer, normal(2, length, width)).isfinite()).sum())
        if infinite:
            raise Broken(f"at length {length}, {infinite} outputs are not finite")
    return f"lengths {', '.join(map(str, LENGTHS))}"
