"""Nothing but the input and the weights decides: no chance, no mode, no memory of earlier calls."""

import copy

import torch
from torch import nn

from recall_arena.battery.probe import Broken, asked, difference, normal, outputs, read


def the_same_input_gives_the_same_bits(mixer: nn.Module, width: int) -> str:
    """Outputs and gradients, in float32 and in float64."""
    for dtype in (torch.float32, torch.float64):
        own = copy.deepcopy(mixer).to(dtype)
        x = normal(3, 17, width).to(dtype).requires_grad_()
        for last in asked(mixer):
            again = read(own, x, last=last)
            for name, value in read(own, x, last=last).items():
                if not torch.equal(value, again[name]):
                    error = difference(value, again[name])
                    raise Broken(f"{name} in {dtype} is off by {error:.2g} the second time")
    return "equal bits"


def training_and_evaluation_compute_the_same(mixer: nn.Module, width: int) -> str:
    """`train()` and `eval()` decide nothing."""
    x = normal(2, 12, width)
    own = copy.deepcopy(mixer)
    training, evaluation = outputs(own.train(), x), outputs(own.eval(), x)
    if not torch.equal(training, evaluation):
        raise Broken(f"outputs differ by {difference(training, evaluation):.2g}")
    return "equal bits"
