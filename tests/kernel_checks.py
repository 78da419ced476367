"""How a kernel is compared with its definition: in value, in gradients, bit for bit or nearly.

An error counts relative to the largest magnitude of the exact result.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from recall_arena.kernels import native
from recall_arena.seeds import generator

Inputs = dict[str, Tensor | None]

TOLERANCE = 3e-6  # float32 resolves 6e-8; the sums here have up to 514 terms
NOTHING = 1e-20  # the scale below which a number is nothing beside inputs of about 1

needs_kernels = pytest.mark.skipif(native.LIBRARY is None, reason=f"here run {native.REASON}")


def value_and_gradients(function: Callable[..., Tensor], inputs: Inputs) -> dict[str, Tensor]:
    """The output, and the gradient of each input from one fixed gradient of the output."""
    leaves = {
        name: None if x is None else x.detach().requires_grad_() for name, x in inputs.items()
    }
    out = function(**leaves)
    wanted = {name: leaf for name, leaf in leaves.items() if leaf is not None}
    arriving = torch.randn(out.shape, generator=generator("arriving")).to(out.dtype)
    gradients = torch.autograd.grad(out, list(wanted.values()), arriving)
    named = {f"gradient of {name}": g for name, g in zip(wanted, gradients, strict=True)}
    return {"value": out.detach(), **named}


def in_float64(inputs: Inputs) -> Inputs:
    return {name: None if x is None else x.double() for name, x in inputs.items()}


def exact(definition: Callable[..., Tensor], inputs: Inputs) -> dict[str, Tensor]:
    return value_and_gradients(definition, in_float64(inputs))


def assert_near(
    actual: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = TOLERANCE
) -> None:
    assert actual.keys() == expected.keys()
    for name, wanted in expected.items():
        assert actual[name].shape == wanted.shape, name
        assert wanted.isfinite().all(), name
        largest = wanted.abs().max().clamp(min=NOTHING)
        error = ((actual[name].double() - wanted).abs().max() / largest).item()
        assert error <= tolerance, f"{name} is off by {error:.1e} of its largest number"


def assert_identical(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name, wanted in expected.items():
        assert torch.equal(actual[name], wanted), name


def runs_compiled(function: Callable[..., Tensor], inputs: Inputs) -> bool:
    leaves = {n: None if x is None else x.detach().requires_grad_() for n, x in inputs.items()}
    return type(function(**leaves).grad_fn).__name__.startswith("_Compiled")
