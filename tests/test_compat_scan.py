"""mamba-ssm's scan on this package's kernels, held to the equations in float64, each position for
itself.
"""

from typing import Any

import pytest
import torch
from compat_checks import (
    EXACT,
    HALF,
    SINGLE,
    assert_near,
    cast,
    scan_inputs,
    value_and_gradients,
)
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from recall_arena.compat import selective_scan_fn

FORMS = ["constant", "variable", "one group", "two groups", "a group each"]


def at_each_channel(selection: Tensor, A: Tensor, u: Tensor) -> Tensor:
    """B or C as (batch, dim, state, length)."""
    batch, dim, length = u.shape
    if selection.dim() == 2:
        return selection[None, :, :, None].expand(batch, -1, -1, length)
    if A.is_complex():
        selection = torch.complex(selection[..., 0::2], selection[..., 1::2])
    if selection.dim() == 3:
        selection = selection.unsqueeze(1)
    channels_in_group = dim // selection.shape[1]
    return torch.stack([selection[:, d // channels_in_group] for d in range(dim)], dim=1)


def scan_by_sums(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    return_last_state: bool,
) -> Any:
    """h_t = sum over s <= t of exp(A (Delta_{s+1} + ... + Delta_t)) Delta_s u_s B_s: no steps."""
    delta = delta if delta_bias is None else delta + delta_bias[:, None]
    delta = torch.log1p(delta.exp()) if delta_softplus else delta
    until = delta.cumsum(-1)
    past = torch.ones(u.shape[2], u.shape[2], dtype=torch.bool).tril()
    since = torch.where(past, until[..., :, None] - until[..., None, :], 0)
    weights = torch.exp(A[..., None, None] * since.unsqueeze(2)) * past
    drive = (delta * u).unsqueeze(2) * at_each_channel(B, A, u)
    h = (weights * drive.unsqueeze(3)).sum(-1)
    y = (h * at_each_channel(C, A, u)).sum(2)
    y = 2 * y.real if A.is_complex() else y
    y = y if D is None else y + D[:, None] * u
    y = y if z is None else y * z * torch.sigmoid(z)
    return (y, h[..., -1]) if return_last_state else y


forms, either = st.sampled_from(FORMS), st.booleans()


@given(
    forms, forms, st.integers(1, 9), st.sampled_from([2, 4]), either, either, either, either, either
)
def test_a_scan_of_any_kind_equals_its_equations(B, C, length, dim, of_pairs, s, skip, gate, bias):
    kind = {"complex_states": of_pairs, "softplus": s, "skip": skip, "gate": gate, "bias": bias}
    inputs = scan_inputs(B, C, length=length, dim=dim, last=True, **kind)
    expected = value_and_gradients(scan_by_sums, inputs)
    assert_near(value_and_gradients(selective_scan_fn, inputs), expected, EXACT)
    single = value_and_gradients(selective_scan_fn, cast(inputs, torch.float32))
    assert {x.dtype for x in single.values()} <= {torch.float32, torch.complex64}
    assert_near(single, expected, 10 * SINGLE)  # sums cancel, and time steps below 0 grow


@pytest.mark.parametrize("kind", [{}, {"softplus": False}, {"complex_states": True}], ids=str)
@pytest.mark.parametrize("form", ["variable", "two groups"])
def test_its_second_derivatives_are_those_of_the_equations(form, kind):
    inputs = scan_inputs(form, form, length=5, last=True, **kind)
    expected = value_and_gradients(scan_by_sums, inputs, twice=True)
    assert_near(value_and_gradients(selective_scan_fn, inputs, twice=True), expected, EXACT)
    single = value_and_gradients(selective_scan_fn, cast(inputs, torch.float32), twice=True)
    assert_near(single, expected, 10 * SINGLE)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
def test_torch_func_differentiates_the_last_state_too():
    inputs = cast(scan_inputs(last=True), torch.float32)

    def loss(u: Tensor) -> Tensor:
        return sum((x**2).sum() for x in selective_scan_fn(**inputs | {"u": u}))

    expected = torch.autograd.functional.jacobian(loss, inputs["u"])
    torch.testing.assert_close(torch.func.grad(loss)(inputs["u"]), expected)
    forward = torch.func.jvp(loss, (inputs["u"],), (torch.ones_like(expected),))[1]
    torch.testing.assert_close(forward, expected.sum())


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("gate", [False, True])
@pytest.mark.parametrize("form", FORMS[1:])
@pytest.mark.usefixtures("instruction_set")
def test_scans_of_what_each_token_chooses_run_compiled(form, gate, last, called):
    inputs = scan_inputs(form, form, length=33, gate=gate, last=last)
    actual = value_and_gradients(selective_scan_fn, cast(inputs, torch.float32))
    groups = {"two groups": 2, "a group each": 4}.get(form, 1)
    assert called == ["recall_scan_forward"] * groups + ["recall_scan_backward"] * groups
    assert_near(actual, value_and_gradients(scan_by_sums, inputs), SINGLE)


@pytest.mark.parametrize(
    "kind",
    [{"softplus": False}, {"complex_states": True}, {"B": "constant"}, {"C": "two groups"}],
    ids=str,
)
def test_other_scans_run_the_definition(kind, called):
    selective_scan_fn(**cast(scan_inputs(**kind), torch.float32))
    assert called == []


@pytest.mark.parametrize("gate", [False, True])
def test_the_last_state_is_the_same_whether_or_not_it_has_gradients(gate):
    inputs = cast(scan_inputs("two groups", "two groups", gate=gate, last=True), torch.float32)
    alone = selective_scan_fn(**inputs)
    recorded = selective_scan_fn(**inputs | {"u": inputs["u"].clone().requires_grad_()})
    assert recorded[1].requires_grad
    for actual, expected in zip(alone, recorded, strict=True):
        torch.testing.assert_close(actual, expected.detach(), rtol=1e-6, atol=1e-6)


def test_an_infinite_state_leaves_the_other_states_alone():
    inputs = cast(scan_inputs(last=True), torch.float32)
    _, expected = selective_scan_fn(**inputs)
    inputs["B"][0, 1, 4] = torch.inf
    _, state = selective_scan_fn(**inputs)
    assert not state[0, :, 1].isfinite().any()
    assert torch.equal(state[:, :, 0::2], expected[:, :, 0::2])


def test_what_is_left_out_is_left_out():
    inputs = scan_inputs(skip=False, gate=False, bias=False, softplus=False)
    five = [inputs[name] for name in ("u", "delta", "A", "B", "C")]
    assert_near({"out": selective_scan_fn(*five)}, {"out": scan_by_sums(**inputs)}, EXACT)


def test_tensors_may_lie_in_memory_as_they_like():
    inputs = cast(scan_inputs(), torch.float32)
    strided = {
        name: x.mT.contiguous().mT if isinstance(x, Tensor) and x.dim() > 1 else x
        for name, x in inputs.items()
    }
    torch.testing.assert_close(selective_scan_fn(**strided), selective_scan_fn(**inputs))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("gate", [False, True])
def test_half_precision_comes_back_as_it_came_and_its_state_in_single(gate, dtype):
    inputs = scan_inputs(gate=gate, last=True)
    rounded = cast(inputs, dtype)
    out, state = selective_scan_fn(**rounded | {"A": inputs["A"].float()})
    assert (out.dtype, state.dtype) == (dtype, torch.float32)
    exact = scan_by_sums(**cast(rounded, torch.float64) | {"A": inputs["A"]})
    assert_near({"out": out, "state": state}, dict(zip(("out", "state"), exact, strict=True)), HALF)


@pytest.mark.parametrize("kind", [{}, {"softplus": False}], ids=str)
def test_a_scan_of_nothing_leaves_a_state_of_zeros(kind):
    out, state = selective_scan_fn(**scan_inputs(length=0, last=True, **kind))
    assert out.shape == (2, 4, 0)
    assert torch.equal(state, torch.zeros(2, 4, 3, dtype=torch.float64))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("u", (2, 4)),
        ("u", (2, 3, 9)),
        ("delta", (2, 4, 8)),
        ("A", (4,)),
        ("A", (5, 3)),
        ("B", (4, 2)),
        ("B", (2, 3, 18)),
        ("B", (2, 3, 3, 9)),
        ("B", (2, 0, 3, 9)),
        ("C", (1, 3, 9)),
        ("C", (2, 1, 1, 3, 9)),
        ("D", (3,)),
        ("z", (2, 4, 1)),
        ("delta_bias", (4, 1)),
    ],
)
def test_a_scan_of_shapes_that_do_not_fit_is_refused(name, shape):
    with pytest.raises(ValueError, match="u, delta, z must be") as refused:
        selective_scan_fn(**scan_inputs() | {name: torch.zeros(shape)})
    assert f"{name} {shape}" in str(refused.value)


@pytest.mark.parametrize("name", ["u", "delta", "B", "C", "D", "z", "delta_bias"])
@pytest.mark.parametrize("dtype", [torch.complex64, torch.int64])
def test_a_scan_of_other_than_real_numbers_is_refused(name, dtype):
    inputs = scan_inputs()
    with pytest.raises(TypeError, match=f"{name} must be a tensor of real .* got {dtype}"):
        selective_scan_fn(**inputs | {name: inputs[name].to(dtype)})
