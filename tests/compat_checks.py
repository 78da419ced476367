"""Inputs for compat's functions, and how these are compared with their equations: all outputs, all
first derivatives and, through a second differentiation, products with the Hessian.

An error counts relative to the largest magnitude of the exact result.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from recall_arena.kernels import native
from recall_arena.seeds import generator

Inputs = dict[str, Any]
Results = dict[str, Tensor]

EXACT = 1e-11
SINGLE = 5e-6
HALF = 0.05
CHAINED = 1e-4  # a whole model in single precision, one order of summation against another


def compiled(*names: str) -> list[str]:
    """The calls of compiled kernels to expect: none of these where nothing is compiled."""
    return [] if native.LIBRARY is None else [f"recall_{name}" for name in names]


def differentiable(x: Any) -> bool:
    return isinstance(x, Tensor) and (x.is_floating_point() or x.is_complex())


def value_and_gradients(
    function: Callable[..., Any], inputs: Inputs, *, twice: bool = False
) -> Results:
    """All outputs, each input's gradient from one fixed gradient of each output and, if `twice`,
    the gradient of the sum of all gradients' squares.
    """
    inputs = {n: x.detach().requires_grad_() if differentiable(x) else x for n, x in inputs.items()}
    returned = function(**inputs)
    outs = returned if isinstance(returned, tuple) else (returned,)
    reals = [torch.view_as_real(out) if out.is_complex() else out for out in outs]
    rng = generator("arriving")
    arriving = [torch.randn(out.shape, generator=rng).to(out.dtype) for out in reals]
    leaves = {name: x for name, x in inputs.items() if differentiable(x)}

    def derive(ys: list[Tensor], from_above: list[Tensor] | None) -> list[Tensor]:
        wanted = {"materialize_grads": True, "create_graph": twice}
        return list(torch.autograd.grad(ys, list(leaves.values()), from_above, **wanted))

    gradients = derive(reals, arriving)
    named = {f"gradient of {name}": g for name, g in zip(leaves, gradients, strict=True)}
    if twice:
        second = derive([sum((g.abs() ** 2).sum() for g in gradients)], None)
        named |= {f"second of {name}": g for name, g in zip(leaves, second, strict=True)}
    return {
        n: x.detach() for n, x in ({f"output {i}": o for i, o in enumerate(outs)} | named).items()
    }


def scan_inputs(
    B: str = "variable",
    C: str = "variable",
    *,
    length: int = 9,
    dim: int = 4,
    complex_states: bool = False,
    softplus: bool = True,
    skip: bool = True,
    gate: bool = True,
    bias: bool = True,
    last: bool = False,
) -> Inputs:
    batch, state, rng = 2, 3, generator("scan", length, dim)

    def normal(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.randn(*shape, generator=rng, dtype=dtype)

    def selection(form: str) -> Tensor:
        if form == "constant":
            return normal(dim, state, dtype=A.dtype)
        groups = {"variable": (), "one group": (1,), "two groups": (2,), "a group each": (dim,)}
        return normal(batch, *groups[form], state, (2 if complex_states else 1) * length)

    A = -normal(dim, state).exp()
    A = torch.complex(A, 2 * normal(dim, state)) if complex_states else A
    delta = normal(batch, dim, length)
    return {
        "u": normal(batch, dim, length),
        "delta": delta if softplus else 0.3 * delta,
        "A": A,
        "B": selection(B),
        "C": selection(C),
        "D": normal(dim) if skip else None,
        "z": normal(batch, dim, length) if gate else None,
        "delta_bias": 0.3 * normal(dim) if bias else None,
        "delta_softplus": softplus,
        "return_last_state": last,
    }


def conv_inputs(
    length: int, width: int, *, bias: bool, states: bool = False, packed: bool = False
) -> Inputs:
    batch, dim, rng = 2, 5, generator("convolution", length, width)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng, dtype=torch.float64)

    order = torch.randint(-1, 2, (batch, length), generator=rng).sort(dim=1)[0].int()
    return {
        "x": normal(batch, dim, length),
        "weight": normal(dim, width),
        "bias": normal(dim) if bias else None,
        "initial_states": normal(batch, dim, width - 1) if states else None,
        "seq_idx": order if packed else None,
    }


def cast(inputs: Inputs, real: torch.dtype) -> Inputs:
    def one(x: Any) -> Any:
        if not differentiable(x):
            return x
        return x.detach().to(real.to_complex() if x.is_complex() else real)

    return {name: one(x) for name, x in inputs.items()}


def assert_near(actual: Results, expected: Results, tolerance: float) -> None:
    assert actual.keys() == expected.keys()
    for name, wanted in expected.items():
        assert actual[name].shape == wanted.shape, name
        assert wanted.isfinite().all(), name
        if wanted.numel() > 0:
            largest = wanted.abs().max().clamp(min=1e-20)
            error = ((actual[name] - wanted).abs().max() / largest).item()
            assert error <= tolerance, f"{name} is off by {error:.1e} of its largest number"
