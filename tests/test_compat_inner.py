"""mamba-ssm's block on this package's kernels, held to its equations in float64."""

import pytest
import torch
from compat_checks import (
    EXACT,
    HALF,
    SINGLE,
    Inputs,
    assert_near,
    cast,
    compiled,
    value_and_gradients,
)
from torch import Tensor
from torch.nn import functional as F

from recall_arena.compat import mamba_inner_fn
from recall_arena.seeds import generator


def inner_inputs(B: bool = True, C: bool = True, *, complex_states: bool = False) -> Inputs:
    """The weights of a small block; B and C say which of the two each token chooses."""
    dim, state, rank, rng = 4, 3, 2, generator("inner")
    numbers = state * (2 if complex_states else 1)

    def normal(*shape: int) -> Tensor:
        return 0.5 * torch.randn(*shape, generator=rng, dtype=torch.float64)

    A = -normal(dim, state).exp()
    A = torch.complex(A, normal(dim, state)) if complex_states else A
    return {
        "xz": normal(2, 2 * dim, 6),
        "conv1d_weight": normal(dim, 1, 3),
        "conv1d_bias": normal(dim),
        "x_proj_weight": normal(rank + (B + C) * numbers, dim),
        "delta_proj_weight": normal(dim, rank),
        "out_proj_weight": normal(5, dim),
        "out_proj_bias": normal(5),
        "A": A,
        "B": None if B else normal(dim, state).to(A.dtype),
        "C": None if C else normal(dim, state).to(A.dtype),
        "D": normal(dim),
        "delta_bias": normal(dim),
        "B_proj_bias": normal(numbers) if B else None,
        "C_proj_bias": normal(numbers) if C else None,
        "b_rms_weight": normal(state) if B and not complex_states else None,
        "c_rms_weight": normal(state) if C and not complex_states else None,
        "dt_rms_weight": normal(dim),
    }


def inner_by_positions(
    xz: Tensor,
    conv1d_weight: Tensor,
    conv1d_bias: Tensor,
    x_proj_weight: Tensor,
    delta_proj_weight: Tensor,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor,
    A: Tensor,
    B: Tensor | None,
    C: Tensor | None,
    D: Tensor,
    delta_bias: Tensor,
    B_proj_bias: Tensor | None,
    C_proj_bias: Tensor | None,
    b_rms_weight: Tensor | None,
    c_rms_weight: Tensor | None,
    dt_rms_weight: Tensor,
) -> Tensor:
    """The block's equations for one position after another, the whole past convolved each time."""

    def normalised(x: Tensor, weight: Tensor | None) -> Tensor:
        return x if weight is None else weight * x / (x.square().mean(-1, True) + 1e-6).sqrt()

    def selected(constant: Tensor | None, numbers: Tensor, bias: Tensor, weight: Tensor) -> Tensor:
        if constant is not None:
            return constant.expand(len(xz), *A.shape)
        chosen = normalised(numbers + bias, weight)
        pairs = chosen.unflatten(-1, (-1, 2)) if A.is_complex() else None
        return (chosen if pairs is None else torch.view_as_complex(pairs)).unsqueeze(1)

    x, outs, h, rank = xz.unbind(-1), [], 0, delta_proj_weight.shape[1]
    numbers = 0 if B is not None else A.shape[1] * (2 if A.is_complex() else 1)
    for t in range(len(x)):
        window = range(max(t - 2, 0), t + 1)
        u = sum(conv1d_weight[:, 0, 2 - t + s] * x[s].chunk(2, dim=1)[0] for s in window)
        u = F.silu(u + conv1d_bias)
        made, z = u @ x_proj_weight.T, x[t].chunk(2, dim=1)[1]
        delta = normalised(made[:, :rank] @ delta_proj_weight.T, dt_rms_weight)
        delta = torch.log1p((delta + delta_bias).exp()).unsqueeze(-1)
        _, for_B, for_C = made.tensor_split([rank, rank + numbers], dim=1)
        B_t = selected(B, for_B, B_proj_bias, b_rms_weight)
        C_t = selected(C, for_C, C_proj_bias, c_rms_weight)
        h = torch.exp(delta * A) * h + delta * u.unsqueeze(-1) * B_t
        y = (h * C_t).sum(-1)
        y = (2 * y.real if A.is_complex() else y) + D * u
        outs.append((y * z * torch.sigmoid(z)) @ out_proj_weight.T + out_proj_bias)
    return torch.stack(outs, dim=1)


@pytest.mark.parametrize("complex_states", [False, True])
@pytest.mark.parametrize("C", [False, True])
@pytest.mark.parametrize("B", [False, True])
def test_a_block_equals_its_equations(B, C, complex_states):
    inputs = inner_inputs(B, C, complex_states=complex_states)
    expected = value_and_gradients(inner_by_positions, inputs, twice=True)
    assert_near(value_and_gradients(mamba_inner_fn, inputs, twice=True), expected, EXACT)
    single = value_and_gradients(mamba_inner_fn, cast(inputs, torch.float32), twice=True)
    assert_near(single, expected, 10 * SINGLE)


def test_nothing_optional_is_needed(called):
    inputs = cast(inner_inputs(), torch.float32)
    least = dict(list(inputs.items())[:8]) | {"conv1d_bias": None, "out_proj_bias": None}
    assert mamba_inner_fn(**least).shape == (2, 6, 5)
    assert called == compiled("conv_forward", "scan_forward")
    for level in (0, 1):
        assert torch.equal(mamba_inner_fn(**inputs, checkpoint_lvl=level), mamba_inner_fn(**inputs))


def test_half_precision_comes_back_as_it_came():
    inputs = inner_inputs()
    rounded = cast(inputs, torch.bfloat16) | {"A": inputs["A"].float()}
    out = mamba_inner_fn(**rounded)
    assert out.dtype == torch.bfloat16
    assert_near({"out": out}, {"out": inner_by_positions(**inputs)}, HALF)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"xz": torch.zeros(2, 6, 7)}, r"xz must be .* got xz \(2, 6, 7\)"),
        ({"conv1d_weight": torch.zeros(4, 3)}, r"conv1d_weight \(4, 3\)"),
        ({"x_proj_weight": torch.zeros(5, 4)}, r"2 \+ 3 \+ 3 for delta, B and C"),
        ({"out_proj_weight": torch.zeros(5, 8)}, r"out_proj_weight \(5, 8\)"),
        (
            inner_inputs(B=False) | {"b_rms_weight": torch.ones(3)},
            "B is given, so there is no bias",
        ),
        ({"checkpoint_lvl": 2}, "checkpoint_lvl must be 0 or 1, got 2"),
    ],
)
def test_a_block_that_does_not_fit_together_is_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        mamba_inner_fn(**inner_inputs() | changed)


def test_the_norm_of_a_chosen_B_needs_real_states():
    inputs = inner_inputs(complex_states=True) | {"b_rms_weight": torch.ones(3)}
    with pytest.raises(ValueError, match="norm of B needs a real A"):
        mamba_inner_fn(**inputs)
