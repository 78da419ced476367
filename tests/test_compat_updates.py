"""The updates by further positions go on where the whole sequences' functions stopped, wherever the
states lie.
"""

import pytest
import torch
from compat_checks import (
    EXACT,
    SINGLE,
    assert_near,
    cast,
    conv_inputs,
    scan_inputs,
    value_and_gradients,
)
from torch import Tensor
from torch.nn import functional as F

from recall_arena.compat import (
    causal_conv1d_fn,
    causal_conv1d_update,
    causal_conv1d_varlen_states,
    selective_scan_fn,
    selective_state_update,
)
from recall_arena.seeds import generator


def normal(name: str, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator(name), dtype=torch.float64)


# The scan's state


@pytest.mark.parametrize("softplus", [True, False])
@pytest.mark.parametrize("all_options", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_updates_go_on_where_a_scan_stopped(dtype, all_options, softplus):
    kind = dict.fromkeys(("skip", "gate", "bias"), all_options)
    inputs = cast(scan_inputs(softplus=softplus, last=True, **kind), dtype)
    out, state = selective_scan_fn(**inputs)

    names = ("u", "delta", "B", "C", "z")
    start = {n: x[..., :5] if n in names and x is not None else x for n, x in inputs.items()}
    first, carried = selective_scan_fn(**start)
    outs = [first]
    for t in range(5, 9):
        x, dt, B, C, z = (None if inputs[n] is None else inputs[n][..., t] for n in names)
        constants = {"D": inputs["D"], "dt_bias": inputs["delta_bias"], "dt_softplus": softplus}
        y = selective_state_update(carried, x, dt, inputs["A"], B, C, z=z, **constants)
        outs.append(y.unsqueeze(2))
    tolerance = EXACT if dtype == torch.float64 else SINGLE
    results = {"out": torch.cat(outs, dim=2), "state": carried}
    assert_near(results, {"out": out, "state": state}, tolerance)


def update_inputs(groups: int = 2, heads: int = 4) -> dict[str, Tensor]:
    batch, dim, size = 3, 5, 2
    token, head = (batch, heads, dim), (heads, dim)
    shapes = {"x": token, "dt": token, "z": token, "D": head, "dt_bias": head, "A": (*head, size)}
    shapes |= {"state": (*token, size), "B": (batch, groups, size), "C": (batch, groups, size)}
    return {name: normal(name, *shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_each_head_is_updated_as_one_alone_with_its_groups_B_and_C(groups):
    inputs = update_inputs(groups)
    state = inputs["state"].clone()
    out = selective_state_update(**inputs | {"state": state}, dt_softplus=True)
    for head in range(4):
        of_token = {name: inputs[name][:, head] for name in ("state", "x", "dt", "z")}
        of_group = {name: inputs[name][:, head * groups // 4] for name in ("B", "C")}
        constants = {name: inputs[name][head] for name in ("A", "D", "dt_bias")}
        alone = selective_state_update(**of_token, **of_group, **constants, dt_softplus=True)
        results = {"out": out[:, head], "state": state[:, head]}
        assert_near(results, {"out": alone, "state": of_token["state"]}, EXACT)


@pytest.mark.parametrize("twice", [False, True])
def test_an_update_has_the_derivatives_of_a_scan_of_one_position(twice):
    inputs = scan_inputs(length=1, last=True)

    def step(u, delta, A, B, C, D, z, delta_bias, delta_softplus, return_last_state):
        state, (u, delta, B, C, z) = (
            torch.zeros(2, 4, 3).double(),
            (x[..., 0] for x in (u, delta, B, C, z)),
        )
        y = selective_state_update(state, u, delta, A, B, C, D, z, delta_bias, delta_softplus)
        return y.unsqueeze(2), state

    expected = value_and_gradients(selective_scan_fn, inputs, twice=twice)
    assert_near(value_and_gradients(step, inputs, twice=twice), expected, EXACT)


def test_the_states_that_indices_name_are_updated_and_no_other():
    inputs = update_inputs()
    states, indices = normal("all", 7, 4, 5, 2), torch.tensor([6, -1, 2], dtype=torch.int32)
    inputs["state"] = states[indices.long()]
    before, out_of_all = states.clone(), inputs | {"state": states, "state_batch_indices": indices}
    out, expected = selective_state_update(**out_of_all), selective_state_update(**inputs)
    assert torch.equal(out[[0, 2]], expected[[0, 2]])
    assert not out[1].any()
    assert torch.equal(states[[6, 2]], inputs["state"][[0, 2]])
    assert torch.equal(states[[0, 1, 3, 4, 5]], before[[0, 1, 3, 4, 5]])


def test_half_precision_outputs_are_read_from_the_state_as_it_is_stored():
    inputs = {name: x.bfloat16() for name, x in update_inputs().items()}
    out = selective_state_update(**inputs | {"D": None, "z": None})
    assert out.dtype == torch.bfloat16
    C = inputs["C"].float().repeat_interleave(2, dim=1).unsqueeze(2)
    assert torch.equal(out, (inputs["state"].float() * C).sum(-1).bfloat16())


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("x", torch.zeros(3, 4, 6), ValueError),
        ("A", torch.zeros(4, 5, 3), ValueError),
        ("B", torch.zeros(3, 3, 2), ValueError),
        ("D", torch.zeros(5), ValueError),
        ("state", torch.zeros(2, 4, 5, 2), ValueError),
        ("A", torch.zeros(4, 5, 2, dtype=torch.complex64), TypeError),
        ("state_batch_indices", torch.tensor([0, 1]), ValueError),
        ("state_batch_indices", torch.tensor([0, 1, 3]), ValueError),
        ("state_batch_indices", torch.tensor([0, 1, 1]), ValueError),
        ("state_batch_indices", torch.zeros(3), TypeError),
    ],
)
def test_an_update_that_does_not_fit_together_is_refused(name, value, error):
    before = update_inputs()
    with pytest.raises(error, match=name):
        selective_state_update(**before | {name: value})


# The convolution's state


@pytest.mark.parametrize("activation", [None, "silu"])
@pytest.mark.parametrize("steps", [[1] * 7, [3, 1, 3], [7]])
@pytest.mark.parametrize("size", [3, 4, 9])
def test_updates_go_on_where_a_convolution_stopped(size, steps, activation):
    inputs = conv_inputs(7, 4, bias=True)
    x, weight, bias = inputs["x"], inputs["weight"], inputs["bias"]
    state = torch.zeros(2, 5, size, dtype=torch.float64)
    outs = [causal_conv1d_update(p, state, weight, bias, activation) for p in x.split(steps, 2)]
    whole = causal_conv1d_fn(x, weight, bias, activation=activation)
    assert_near({"out": torch.cat(outs, dim=2)}, {"out": whole}, EXACT)
    assert torch.equal(state, F.pad(x, (size, 0))[..., -size:])


@pytest.mark.parametrize("steps", [[1] * 7, [3, 1, 3], [7]])
@pytest.mark.parametrize("size", [3, 4, 9])
def test_a_circular_buffer_gives_the_same_from_any_number_of_inputs_on(size, steps):
    inputs = conv_inputs(7, 4, bias=True)
    lengths, outs = torch.tensor([4, 1023], dtype=torch.int32), []
    state, shifted = torch.zeros(2, 2, 5, size, dtype=torch.float64)
    constants = (inputs["weight"], inputs["bias"], "silu")
    for x in inputs["x"].split(steps, 2):
        outs.append(causal_conv1d_update(x, state, *constants, cache_seqlens=lengths))
        assert torch.equal(outs[-1], causal_conv1d_update(x, shifted, *constants))
        lengths = lengths + x.shape[2]
        for b in range(2):
            assert torch.equal(state[b].roll(-int(lengths[b]), dims=1), shifted[b])


def test_the_convolution_states_that_indices_name_are_updated_and_no_other():
    inputs = conv_inputs(2, 4, bias=True)
    states, indices = normal("all", 6, 5, 3), torch.tensor([4, -1], dtype=torch.int32)
    before, own = states.clone(), states[4:5].clone()
    for lengths in (None, torch.tensor([7, 9])):
        constants = (inputs["weight"], inputs["bias"], None)
        out = causal_conv1d_update(inputs["x"], states, *constants, lengths, indices)
        first = None if lengths is None else lengths[:1]
        assert torch.equal(out[:1], causal_conv1d_update(inputs["x"][:1], own, *constants, first))
        assert not out[1].any()
        assert torch.equal(states[4:5], own)
    assert torch.equal(states[[0, 1, 2, 3, 5]], before[[0, 1, 2, 3, 5]])


def test_an_update_by_one_position_needs_no_axis_for_it():
    x, weight, state = torch.randn(2, 5), torch.randn(5, 4), torch.randn(2, 5, 4)
    again = state.clone()
    out = causal_conv1d_update(x, state, weight, activation="silu")
    assert torch.equal(out, causal_conv1d_update(x[..., None], again, weight, None, "silu")[..., 0])
    assert torch.equal(state, again)
    assert torch.equal(state[..., -1], x)


@pytest.mark.parametrize("lengths", [None, torch.tensor([0, 5])])
def test_a_window_of_one_needs_no_state(lengths):
    x, weight, state = torch.randn(2, 5, 3), torch.randn(5, 1), torch.zeros(2, 5, 0)
    out = causal_conv1d_update(x, state, weight, cache_seqlens=lengths)
    torch.testing.assert_close(out, x * weight)


@pytest.mark.parametrize("state", [(2, 5, 2), (1, 5, 3), (2, 4, 3), (2, 5)])
def test_an_update_of_a_state_that_does_not_fit_is_refused(state):
    with pytest.raises(ValueError, match="conv_state") as refused:
        causal_conv1d_update(torch.zeros(2, 5), torch.zeros(state), torch.zeros(5, 4))
    assert f"conv_state {state}" in str(refused.value)


@pytest.mark.parametrize(
    ("option", "value", "error"),
    [
        ("cache_seqlens", torch.tensor([1]), ValueError),
        ("cache_seqlens", torch.tensor([1, -1]), ValueError),
        ("cache_seqlens", torch.tensor([1.0, 2.0]), TypeError),
        ("conv_state_indices", torch.tensor([0]), ValueError),
        ("conv_state_indices", torch.tensor([0, 2]), ValueError),
        ("conv_state_indices", torch.tensor([1, 1]), ValueError),
    ],
)
def test_lengths_and_indices_that_do_not_fit_are_refused(option, value, error):
    x, state, weight = torch.zeros(2, 5), torch.zeros(2, 5, 3), torch.zeros(5, 4)
    with pytest.raises(error, match=option):
        causal_conv1d_update(x, state, weight, **{option: value})


# States of packed sequences


@pytest.mark.parametrize("size", [0, 1, 3, 8])
def test_each_packed_sequence_leaves_its_last_inputs(size):
    sequences = [normal(f"sequence {length}", length, 5) for length in (2, 0, 7, 1)]
    bounds = torch.tensor([0, 2, 2, 9, 10], dtype=torch.int32)
    states = causal_conv1d_varlen_states(torch.cat(sequences), bounds, size)
    assert states.shape == (4, 5, size)
    for state, sequence in zip(states, sequences, strict=True):
        assert torch.equal(state, F.pad(sequence, (0, 0, size, 0))[len(sequence) :].T)


@pytest.mark.parametrize("bounds", [[0, 3, 2], [-1, 2, 3], [0, 2, 5]])
def test_bounds_that_fall_or_leave_the_inputs_are_refused(bounds):
    with pytest.raises(ValueError, match="cu_seqlens must rise from 0 to at most 4"):
        causal_conv1d_varlen_states(torch.zeros(4, 5), torch.tensor(bounds), 3)
