"""causal-conv1d's convolution on this package's kernels, held to its equation in float64, each
position for itself.
"""

from typing import Any

import jaxtyping
import pytest
import torch
from compat_checks import EXACT, HALF, SINGLE, assert_near, cast, conv_inputs, value_and_gradients
from hypothesis import given
from hypothesis import strategies as st
from kernel_checks import needs_kernels
from torch import Tensor

from recall_arena.compat import causal_conv1d_fn, causal_conv1d_update


def conv_by_position(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_states: Tensor | None,
    seq_idx: Tensor | None,
    activation: str | None,
    return_final_states: bool = False,
) -> Any:
    batch, dim, length = x.shape
    before = weight.shape[1] - 1
    states = x.new_zeros(batch, dim, before) if initial_states is None else initial_states
    whole = torch.cat([states, x], dim=2)
    out = 0 * x
    for b in range(batch):
        for t in range(length):
            y = torch.zeros_like(x[b, :, t]) if bias is None else bias
            for k in range(before + 1):
                s = t - before + k
                if seq_idx is None or (s >= 0 and seq_idx[b, s] == seq_idx[b, t]):
                    y = y + weight[:, k] * whole[b, :, t + k]
            if seq_idx is None or seq_idx[b, t] >= 0:
                out[b, :, t] = y if activation is None else y * torch.sigmoid(y)
    return (out, whole[..., length:]) if return_final_states else out


either, activations = st.booleans(), st.sampled_from([None, "silu", "swish"])


@given(st.integers(1, 7), st.integers(1, 5), either, either, either, activations)
def test_a_convolution_equals_its_equation(length, width, bias, states, final, activation):
    inputs = conv_inputs(length, width, bias=bias, states=states)
    inputs |= {"activation": activation, "return_final_states": final}
    expected = value_and_gradients(conv_by_position, inputs)
    assert_near(value_and_gradients(causal_conv1d_fn, inputs), expected, EXACT)
    single = value_and_gradients(causal_conv1d_fn, cast(inputs, torch.float32))
    assert {x.dtype for x in single.values()} == {torch.float32}
    assert_near(single, expected, SINGLE)


@given(st.integers(1, 9), st.integers(1, 5), either, activations)
def test_packed_sequences_do_not_see_each_other(length, width, bias, activation):
    inputs = conv_inputs(length, width, bias=bias, packed=True) | {"activation": activation}
    expected = value_and_gradients(conv_by_position, inputs)
    assert_near(value_and_gradients(causal_conv1d_fn, inputs), expected, EXACT)


@pytest.mark.parametrize("activation", [None, "silu"])
@pytest.mark.parametrize("packed", [False, True])
def test_its_second_derivatives_are_those_of_the_equation(packed, activation):
    inputs = conv_inputs(5, 3, bias=True, states=not packed, packed=packed)
    inputs |= {"activation": activation}
    expected = value_and_gradients(conv_by_position, inputs, twice=True)
    assert_near(value_and_gradients(causal_conv1d_fn, inputs, twice=True), expected, EXACT)
    single = value_and_gradients(causal_conv1d_fn, cast(inputs, torch.float32), twice=True)
    assert_near(single, expected, 2 * SINGLE)


@pytest.mark.parametrize("states", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@needs_kernels
def test_convolutions_with_silu_run_compiled(bias, states, called):
    inputs = cast(conv_inputs(17, 4, bias=bias, states=states), torch.float32)
    value_and_gradients(causal_conv1d_fn, inputs | {"activation": "silu"})
    assert called == ["recall_conv_forward", "recall_conv_backward"]


def test_final_states_are_written_where_they_are_wanted():
    inputs = conv_inputs(7, 4, bias=True, states=True)
    place = torch.zeros(2, 5, 3, dtype=torch.float64)
    _, final = causal_conv1d_fn(**inputs, return_final_states=True, final_states_out=place)
    assert final is place
    assert torch.equal(place, inputs["x"][..., -3:])
    with pytest.raises(ValueError, match=r"must be \(2, 5, 3\); got final_states_out \(1, 5, 3\)"):
        causal_conv1d_fn(**inputs, return_final_states=True, final_states_out=place[:1])


@pytest.mark.parametrize("activation", [None, "silu"])
def test_a_convolution_of_nothing_hands_its_states_on(activation):
    inputs = conv_inputs(0, 4, bias=True, states=True) | {"activation": activation}
    out, final = causal_conv1d_fn(**inputs, return_final_states=True)
    assert out.shape == (2, 5, 0)
    assert torch.equal(final, inputs["initial_states"])


@pytest.mark.parametrize("activation", [None, "silu"])
def test_tensors_may_lie_in_memory_as_they_like(activation):
    inputs = cast(conv_inputs(7, 4, bias=True, states=True), torch.float32)
    strided = {
        n: x.mT.contiguous().mT if n != "bias" and x is not None else x for n, x in inputs.items()
    }
    expected = causal_conv1d_fn(**inputs, activation=activation)
    torch.testing.assert_close(causal_conv1d_fn(**strided, activation=activation), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_convolution_in_half_precision_comes_back_so(dtype):
    inputs = conv_inputs(7, 4, bias=True, states=True) | {"activation": "silu"}
    rounded = cast(inputs, dtype)
    out, final = causal_conv1d_fn(**rounded, return_final_states=True)
    assert out.dtype == final.dtype == dtype
    exact = conv_by_position(**cast(rounded, torch.float64))
    assert_near({"out": out}, {"out": exact}, HALF)


def test_a_convolution_it_does_not_know_is_refused():
    x, weight, index = torch.zeros(2, 5, 7), torch.zeros(5, 4), torch.zeros(2, 7, dtype=torch.int32)
    state = torch.zeros(2, 5, 3)
    for function, inputs in [
        (causal_conv1d_fn, (x, weight)),
        (causal_conv1d_update, (x, state, weight)),
    ]:
        with pytest.raises(NotImplementedError, match="must be None, silu or swish; got 'gelu'"):
            function(*inputs, activation="gelu")
    for states in ({"initial_states": state}, {"return_final_states": True}):
        with pytest.raises(ValueError, match="seq_idx excludes"):
            causal_conv1d_fn(x, weight, seq_idx=index, **states)
    with pytest.raises(TypeError, match="seq_idx must be a tensor of integers"):
        causal_conv1d_fn(x, weight, seq_idx=index.float())
    with pytest.raises(TypeError, match="x must be a tensor of real"):
        causal_conv1d_fn(x.to(torch.complex64), weight)


def test_the_activation_in_its_old_place_is_refused(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as outside of these tests
    x, weight, bias = torch.zeros(2, 5, 7), torch.zeros(5, 4), torch.zeros(5)
    with pytest.raises(TypeError, match=r"the fourth argument is seq_idx.*activation='silu'"):
        causal_conv1d_fn(x, weight, bias, "silu")


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("x", (2, 5)),
        ("x", (2, 4, 7)),
        ("weight", (5,)),
        ("weight", (5, 0)),
        ("bias", (4,)),
        ("seq_idx", (2, 6)),
        ("initial_states", (2, 5, 4)),
    ],
)
def test_a_convolution_of_shapes_that_do_not_fit_is_refused(name, shape):
    kind = torch.int32 if name == "seq_idx" else torch.float32
    inputs = {"x": torch.zeros(2, 5, 7), "weight": torch.zeros(5, 4)}
    with pytest.raises(ValueError, match="x must be") as refused:
        causal_conv1d_fn(**inputs | {name: torch.zeros(shape, dtype=kind)})
    assert f"{name} {shape}" in str(refused.value)
