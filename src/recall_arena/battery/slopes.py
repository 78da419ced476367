"""Gradients: finite at any length, and those of the function."""

import copy

import torch
from torch import Tensor, nn

from recall_arena.battery.probe import Broken, gradients, normal, outputs, within

STEP = 1e-6
TOLERANCE = 1e-5
"""Of differences over STEP in float64, whose own error is near 1e-9."""


def gradients_are_finite(mixer: nn.Module, width: int) -> str:
    """Those of the input and of every parameter, at 192 positions."""
    x = normal(2, 192, width).requires_grad_()
    found = gradients(outputs(mixer, x), mixer, x)
    for name, gradient in found.items():
        if not gradient.isfinite().all():
            raise Broken(f"{int((~gradient.isfinite()).sum())} numbers of {name}'s are not finite")
    return f"{len(found)} tensors"


def gradients_are_those_of_differences(mixer: nn.Module, width: int) -> str:
    """In float64, along a random direction of the input and of every parameter."""
    mixer, x = copy.deepcopy(mixer), normal(2, 7, width).requires_grad_()
    found = gradients(outputs(mixer, x), mixer, x)
    worst = 0.0
    for name, tensor in {"x": x, **dict(mixer.named_parameters())}.items():
        direction = normal(*tensor.shape)
        expected = float((found[name] * direction).sum())
        measured = _along(mixer, x, tensor, direction)
        scale = max(float(found[name].norm()), 1e-3)
        error = abs(measured - expected) / scale
        within(error, TOLERANCE, f"the gradient of {name}")
        worst = max(worst, error)
    return f"{worst:.1g}"


@torch.no_grad()
def _along(mixer: nn.Module, x: Tensor, tensor: Tensor, direction: Tensor) -> float:
    """The derivative along a direction of one tensor, by a difference around where it is."""
    begin, values = tensor.clone(), []
    for sign in (1, -1):
        tensor.copy_(begin + sign * STEP * direction)
        out = outputs(mixer, x)
        values.append(float((out * normal(*out.shape)).sum()))
    tensor.copy_(begin)
    return (values[0] - values[1]) / (2 * STEP)
