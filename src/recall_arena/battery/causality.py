"""Causality: a position's output is a function of its past and of itself."""

import torch
from torch import Tensor, nn

from recall_arena.battery.probe import Broken, difference, normal, outputs, within


def influence(mixer: nn.Module, width: int, position: int, length: int = 12) -> Tensor:
    """How much each input moves the output at a position: sums of absolute gradients, (length,)."""
    x = normal(1, length, width).requires_grad_()
    (slope,) = torch.autograd.grad(outputs(mixer, x)[0, position].sum(), x)
    return slope[0].abs().sum(dim=-1)


def no_output_depends_on_a_later_input(mixer: nn.Module, width: int) -> str:
    """By gradient: exactly zero."""
    for position in (0, 5, 10):
        later = influence(mixer, width, position)[position + 1 :]
        if not (later == 0).all():
            raise Broken(
                f"the output at {position} has the gradient {float(later.max()):.2g} from later "
                "inputs, and may have 0"
            )
    return "gradients of 0"


def a_longer_sequence_begins_like_a_shorter_one(mixer: nn.Module, width: int) -> str:
    """The same by value, which also sees what has no gradient."""
    x = normal(2, 63, width)
    error = difference(outputs(mixer, x)[:, :17], outputs(mixer, x[:, :17]))
    return within(error, 1e-10, "the first 17 of 63 positions")
