"""float32 is float64 but for rounding, above all where it runs on kernels of its own."""

import copy

from torch import nn

from recall_arena.battery.probe import asked, difference, normal, read, within


def float32_agrees_with_float64(mixer: nn.Module, width: int, tolerance: float = 5e-5) -> str:
    """Outputs and gradients, of all positions and of the last one, to the tolerance."""
    single, worst = copy.deepcopy(mixer).float(), 0.0
    for length in (1, 17, 192):
        x = normal(2, length, width).requires_grad_()
        rounded = x.detach().float().requires_grad_()
        for last in asked(mixer):
            expected = read(mixer, x, last=last)
            for name, found in read(single, rounded, last=last).items():
                error = difference(found, expected[name])
                within(error, tolerance, f"{name} at length {length}")
                worst = max(worst, error)
    return f"{worst:.1g}"
