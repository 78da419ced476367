"""Asked for the last position alone, a mixer gives what stands there in all of them."""

from torch import nn

from recall_arena.battery.probe import Broken, difference, gradients, normal, within
from recall_arena.mixers import Mixer


def last_is_the_last_position_of_all(mixer: nn.Module, width: int) -> str:
    """Value and gradients, also of a single token; only a Mixer can be asked."""
    if not isinstance(mixer, Mixer):
        return "not asked: it is no Mixer"
    worst = 0.0
    for length in (1, 2, 17):
        x = normal(2, length, width).requires_grad_()
        last, row = mixer(x, last=True), mixer(x)[:, -1:]
        if last.shape != row.shape:
            raise Broken(f"it has the shape {tuple(last.shape)}, not {tuple(row.shape)}")
        expected = {"the output": row, **gradients(row, mixer, x)}
        for name, value in {"the output": last, **gradients(last, mixer, x)}.items():
            error = difference(value, expected[name])
            within(error, 1e-10, f"{name} at length {length}")
            worst = max(worst, error)
    return f"{worst:.1g}"
