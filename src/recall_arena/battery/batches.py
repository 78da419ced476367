"""Sequences in a batch do not mix."""

import torch
from torch import nn

from recall_arena.battery.probe import Broken, difference, normal, outputs, within


def sequences_in_a_batch_do_not_mix(mixer: nn.Module, width: int) -> str:
    """By gradient, and by value: a sequence has the same outputs alone."""
    x = normal(3, 12, width).requires_grad_()
    out = outputs(mixer, x)
    (influence,) = torch.autograd.grad(out[1].sum(), x)
    others = float(influence[[0, 2]].abs().max())
    if others != 0:
        raise Broken(f"a sequence's outputs have the gradient {others:.2g} from another's inputs")
    alone = outputs(mixer, x[1:2])
    return within(difference(out[1:2], alone), 1e-10, "a sequence in a batch of 3")
