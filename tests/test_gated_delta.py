"""The gated delta rule is held to its definition in float64, that to other people's code."""

import itertools
import math
from functools import partial

import pytest
import torch
from kernel_checks import (
    TOLERANCE,
    Inputs,
    assert_identical,
    assert_near,
    exact,
    in_float64,
    needs_kernels,
    value_and_gradients,
)
from torch import Tensor

from recall_arena.kernels import gated_delta, gated_delta_definition
from recall_arena.seeds import generator

DECAYS = ("none", "head", "channel")
SIZES = sorted(  # length, heads, key_width, value_width
    {(length, 2, 3, 5) for length in (1, 2, 7, 8, 9, 17, 64, 100, 257)}
    | {(17, 2, keys, values) for keys in (1, 4, 16, 33) for values in (1, 8, 16, 33)}
    | {(length, 1, 33, 17) for length in (1, 2, 15, 16, 17, 32, 33, 100, 257)}  # by products
    | {(19, 1, 64, 128), (9, 3, 20, 70), (40, 2, 32, 8)}
)

each_decay = pytest.mark.parametrize("decay", DECAYS)


def inputs_of(
    length: int,
    heads: int,
    key_width: int,
    value_width: int,
    *,
    decay: str = "head",
    state: bool = True,
    largest_beta: float = 1.0,
    batch: int = 2,
) -> Inputs:
    rng = generator("gated delta", length, heads, key_width, value_width)
    shape = (batch, length, heads)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng)

    g = {"none": None, "head": normal(*shape), "channel": normal(*shape, key_width)}[decay]
    return {
        "q": normal(*shape, key_width),
        "k": normal(*shape, key_width),
        "v": normal(*shape, value_width),
        "g": None if g is None else -(1.5 * g).exp(),  # from nearly nothing to all forgotten
        "beta": largest_beta * normal(*shape).sigmoid(),
        "state": normal(batch, heads, key_width, value_width) if state else None,
    }


def flat(function, normalised: bool = True, scale: float | None = None):
    """Outputs and last state as one tensor."""

    def called(**inputs: Tensor | None) -> Tensor:
        both = function(**inputs, normalised=normalised, scale=scale)
        return torch.cat([x.flatten() for x in both])

    return called


@pytest.mark.one_in(4)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@each_decay
@pytest.mark.usefixtures("instruction_set")
def test_value_and_gradients_are_those_of_the_definition(decay, sizes):
    normalised = sizes[2] > 1  # a lone number at length 1 is 1 or -1, and its gradient all rounding
    for state, largest_beta in itertools.product((False, True), (1.0, 2.0)):
        inputs = inputs_of(*sizes, decay=decay, state=state, largest_beta=largest_beta)
        inputs["k"] = inputs["k"] if normalised else inputs["k"].clamp(-1, 1)
        expected = exact(flat(gated_delta_definition, normalised), inputs)
        found = value_and_gradients(flat(gated_delta, normalised), inputs)
        assert_near(found, expected, 2 * TOLERANCE)


each_key_width = pytest.mark.parametrize("key_width", [6, 33])  # step by step, by products


@each_key_width
@each_decay
@pytest.mark.usefixtures("instruction_set")
def test_keys_of_other_lengths_and_another_scale(decay, key_width):
    inputs = inputs_of(19, 2, key_width, 10, decay=decay)
    inputs["k"] = inputs["k"] * key_width**-0.5 / 2
    options = {"normalised": False, "scale": 0.3}
    expected = exact(flat(gated_delta_definition, **options), inputs)
    assert_near(value_and_gradients(flat(gated_delta, **options), inputs), expected, 2 * TOLERANCE)


@each_decay
def test_the_definitions_gradients_are_its_differences(decay):
    inputs = in_float64(inputs_of(5, 2, 3, 2, decay=decay))
    names = [name for name, x in inputs.items() if x is not None]
    leaves = [inputs[name].requires_grad_() for name in names]

    def function(*tensors: Tensor) -> Tensor:
        given = {"g": None, **dict(zip(names, tensors, strict=True))}
        return flat(gated_delta_definition)(**given)

    assert torch.autograd.gradcheck(function, leaves)


@needs_kernels
def test_second_derivatives_are_those_of_the_definition():
    inputs = inputs_of(6, 1, 3, 2)

    def of_gradient(function, inputs: Inputs) -> Tensor:
        v = inputs["v"].requires_grad_()
        (first,) = torch.autograd.grad(
            flat(function)(**inputs).square().sum(), v, create_graph=True
        )
        return torch.autograd.grad(first.square().sum(), v)[0]

    expected = of_gradient(gated_delta_definition, in_float64(inputs))
    torch.testing.assert_close(
        of_gradient(gated_delta, inputs).double(), expected, rtol=1e-5, atol=1e-5
    )


@each_key_width
@each_decay
@pytest.mark.usefixtures("instruction_set", "shared_out")
def test_repeats_and_threads_change_no_bit(decay, key_width):
    inputs = inputs_of(33, 3, key_width, 20, decay=decay, batch=5)
    torch.set_num_threads(1)
    first = value_and_gradients(flat(gated_delta), inputs)
    for threads in (1, 2, 3, 40):
        torch.set_num_threads(threads)
        assert_identical(value_and_gradients(flat(gated_delta), inputs), first)


@each_key_width
@each_decay
@pytest.mark.usefixtures("instruction_set")
def test_gradients_flow_through_a_sequence_in_pieces_as_through_the_whole(decay, key_width):
    inputs = inputs_of(40, 2, key_width, 20, decay=decay)

    def in_pieces(state: Tensor, **inputs: Tensor | None) -> Tensor:
        outs = []
        for begin, end in itertools.pairwise((0, 1, 8, 11, 40)):
            own = {n: None if x is None else x[:, begin:end] for n, x in inputs.items()}
            out, state = gated_delta(**own, state=state, normalised=True)
            outs.append(out)
        return torch.cat([torch.cat(outs, dim=1).flatten(), state.flatten()])

    expected = exact(flat(gated_delta_definition), inputs)
    assert_near(value_and_gradients(in_pieces, inputs), expected, 2 * TOLERANCE)


@each_key_width
@pytest.mark.usefixtures("instruction_set")
def test_a_thousand_reflections_stay_finite_and_right(key_width):
    """At beta = 2 and without decay the state neither fades nor grows but by what is written."""
    inputs = inputs_of(1000, 1, key_width, 5, decay="none")
    inputs["beta"] = torch.full((2, 1000, 1), 2.0)
    inputs["k"] = inputs["k"] / inputs["k"].norm(dim=-1, keepdim=True)
    expected = exact(flat(gated_delta_definition, normalised=False), inputs)
    found = value_and_gradients(flat(gated_delta, normalised=False), inputs)
    assert_near(found, expected, 1e-4)


@each_key_width
@pytest.mark.usefixtures("instruction_set")
def test_the_layout_in_memory_changes_nothing(key_width):
    inputs = inputs_of(19, 2, key_width, 10)
    expected = value_and_gradients(flat(gated_delta), inputs)
    turned = {
        name: x if x is None else x.transpose(0, -1).contiguous().transpose(0, -1)
        for name, x in inputs.items()
    }
    assert_identical(value_and_gradients(flat(gated_delta), turned), expected)


@each_key_width
@pytest.mark.usefixtures("instruction_set")
def test_a_decay_that_forgets_all_and_one_that_forgets_nothing(key_width):
    """Where g is minus infinity nothing before counts, and no quotient of decays is NaN."""
    inputs = inputs_of(40, 2, key_width, 10, batch=2)
    inputs["g"][:, ::2] = 0.0
    inputs["g"][0, 7] = inputs["g"][1, 33] = -100.0
    expected = exact(flat(gated_delta_definition), inputs)
    assert_near(value_and_gradients(flat(gated_delta), inputs), expected, 2 * TOLERANCE)
    cut = inputs | {"g": inputs["g"].index_fill(1, torch.tensor(7), -math.inf)}
    out, state = gated_delta(**cut)
    rest = {name: x[:, 7:] for name, x in cut.items() if name != "state"}
    assert_near(
        {"out": out[:, 7:], "state": state},
        dict(zip(("out", "state"), gated_delta_definition(**in_float64(rest)), strict=True)),
        2 * TOLERANCE,
    )


def test_an_orthonormal_key_gives_its_value_back_and_is_written_over():
    """What the rule is for: a dictionary, in which a key's last value counts."""
    k = torch.eye(3)[[0, 1, 0, 2]].reshape(1, 4, 1, 3)
    v = torch.arange(8.0).reshape(1, 4, 1, 2)
    _, state = gated_delta(k, k, v, None, torch.ones(1, 4, 1), scale=1.0)
    torch.testing.assert_close(state[0, 0], v[0, [2, 1, 3], 0])


def test_nothing_in_gives_nothing_out():
    for length in (0, 3):
        shape = (0 if length else 2, length, 1)
        q, v, beta = torch.zeros(*shape, 4), torch.zeros(*shape, 5), torch.zeros(shape)
        out, state = gated_delta(q, q, v, None, beta)
        assert out.shape == v.shape
        assert state.shape == (shape[0], 1, 4, 5)


@pytest.mark.parametrize("wrong", ["q", "k", "v", "g", "beta", "state"])
def test_shapes_that_do_not_fit_are_refused(wrong):
    inputs = inputs_of(5, 2, 3, 4)
    inputs[wrong] = inputs[wrong][:, :1]
    with pytest.raises(Exception, match=r"must be|Type-check error"):
        gated_delta(**inputs)


@pytest.mark.parametrize("length", [1, 9, 70])
@pytest.mark.parametrize(
    "form", ["torch_recurrent_gated_delta_rule", "torch_chunk_gated_delta_rule"]
)
@pytest.mark.filterwarnings("ignore")
def test_the_definition_is_transformers_gated_delta_rule(form, length):
    qwen = pytest.importorskip("transformers.models.qwen3_next.modeling_qwen3_next")
    inputs = inputs_of(length, 2, 6, 10)
    q, k, v, g, beta, state = inputs.values()
    options = {"initial_state": state, "output_final_state": True, "use_qk_l2norm_in_kernel": True}
    expected = getattr(qwen, form)(q, k, v, g=g, beta=beta, **options)
    ours = gated_delta_definition(**inputs, normalised=True)
    assert_near(dict(zip("os", ours, strict=True)), dict(zip("os", expected, strict=True)), 1e-5)


@pytest.mark.parametrize("form", ["recurrent_kimi_delta_attention", "chunk_kimi_delta_attention"])
@pytest.mark.filterwarnings("ignore")
def test_the_definition_is_transformers_kimi_delta_attention(form):
    kimi = pytest.importorskip("transformers.models.kimi_linear.modeling_kimi_linear")
    inputs = inputs_of(9, 2, 6, 10, decay="channel")
    q, k, v, g, beta, state = inputs.values()
    theirs = partial(getattr(kimi, form), output_final_state=True, use_qk_l2norm_in_kernel=True)
    expected = theirs(q, k, v, g=g, beta=beta, initial_state=state)
    ours = gated_delta_definition(**inputs, normalised=True)
    assert_near(dict(zip("os", ours, strict=True)), dict(zip("os", expected, strict=True)), 1e-5)
