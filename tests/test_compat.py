"""The functions for callers of mamba-ssm and causal-conv1d: held to the equations in float64, each
position for itself; and transformers' Mamba, which must be the same with them as without.

An error counts relative to the largest magnitude of the exact result.
"""

import subprocess
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kernel_checks import needs_kernels
from torch import Tensor, nn

from recall_arena.compat import (
    causal_conv1d_fn,
    causal_conv1d_update,
    selective_scan_fn,
    selective_state_update,
    use_in_transformers,
)
from recall_arena.kernels import native
from recall_arena.seeds import generator

Inputs = dict[str, Any]
Results = dict[str, Tensor]

EXACT = 1e-11
SINGLE = 5e-6
HALF = 0.05
CHAINED = 1e-4  # a whole model in single precision, one order of summation against another


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The compiled kernels that ran, by name and in order."""
    names: list[str] = []
    call = native.call

    def listed(name: str, arguments: Any, workers: int) -> None:
        names.append(name)
        call(name, arguments, workers)

    monkeypatch.setattr(native, "call", listed)
    return names


def compiled(*names: str) -> list[str]:
    """The calls to expect: none of these where nothing is compiled."""
    return [] if native.LIBRARY is None else [f"recall_{name}" for name in names]


def differentiable(x: Any) -> bool:
    return isinstance(x, Tensor) and (x.is_floating_point() or x.is_complex())


def value_and_gradients(function: Callable[..., Any], inputs: Inputs) -> Results:
    """All outputs, and each input's gradient from one fixed gradient of each output."""
    inputs = {n: x.detach().requires_grad_() if differentiable(x) else x for n, x in inputs.items()}
    returned = function(**inputs)
    outs = returned if isinstance(returned, tuple) else (returned,)
    parts = [torch.view_as_real(out) if out.is_complex() else out for out in outs]
    rng = generator("arriving")
    arriving = [torch.randn(part.shape, generator=rng).to(part.dtype) for part in parts]
    leaves = {name: x for name, x in inputs.items() if differentiable(x)}
    gradients = torch.autograd.grad(parts, list(leaves.values()), arriving, materialize_grads=True)
    named = {f"gradient of {name}": g for name, g in zip(leaves, gradients, strict=True)}
    return {f"output {i}": out.detach() for i, out in enumerate(outs)} | named


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


# The scan

FORMS = ["constant", "variable", "one group", "two groups", "a group each"]


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


def test_what_is_left_out_is_left_out():
    inputs = scan_inputs(skip=False, gate=False, bias=False, softplus=False)
    five = [inputs[name] for name in ("u", "delta", "A", "B", "C")]
    assert_near({"out": selective_scan_fn(*five)}, {"out": scan_by_sums(**inputs)}, EXACT)


@pytest.mark.parametrize("gate", [False, True])
def test_half_precision_comes_back_as_it_came_and_its_state_in_single(gate):
    inputs = scan_inputs(gate=gate, last=True)
    rounded = cast(inputs, torch.bfloat16)
    out, state = selective_scan_fn(**rounded | {"A": inputs["A"].float()})
    assert (out.dtype, state.dtype) == (torch.bfloat16, torch.float32)
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
    assert str(shape) in str(refused.value)


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


def test_an_update_it_does_not_know_is_refused():
    state, x, A, B = torch.zeros(2, 4, 3), torch.zeros(2, 4), torch.zeros(4, 3), torch.zeros(2, 3)
    with pytest.raises(NotImplementedError, match="heads"):
        selective_state_update(torch.zeros(2, 1, 4, 3), x, x, A, B, B)
    with pytest.raises(ValueError, match=r"x, dt, z must be \(batch, dim\)"):
        selective_state_update(state, x, x[:1], A, B, B)
    with pytest.raises(ValueError, match=r"B, C must be \(batch, state\); got \(2, 2\)"):
        selective_state_update(state, x, x, A, B[:, :2], B[:, :2])


# The convolution


def conv_inputs(length: int, width: int, *, bias: bool, states: bool, packed: bool) -> Inputs:
    batch, dim, rng = 2, 5, generator("conv", length, width)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng, dtype=torch.float64)

    return {
        "x": normal(batch, dim, length),
        "weight": normal(dim, width),
        "bias": normal(dim) if bias else None,
        "initial_states": normal(batch, dim, width - 1) if states else None,
        "seq_idx": torch.randint(-1, 2, (batch, length), generator=rng).sort(dim=1)[0].int()
        if packed
        else None,
    }


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


activations = st.sampled_from([None, "silu", "swish"])


@given(st.integers(1, 7), st.integers(1, 5), either, either, either, activations)
def test_a_convolution_equals_its_equation(length, width, bias, states, final, activation):
    inputs = conv_inputs(length, width, bias=bias, states=states, packed=False)
    inputs |= {"activation": activation, "return_final_states": final}
    expected = value_and_gradients(conv_by_position, inputs)
    assert_near(value_and_gradients(causal_conv1d_fn, inputs), expected, EXACT)
    single = value_and_gradients(causal_conv1d_fn, cast(inputs, torch.float32))
    assert {x.dtype for x in single.values()} == {torch.float32}
    assert_near(single, expected, SINGLE)


@given(st.integers(1, 9), st.integers(1, 5), either, activations)
def test_packed_sequences_do_not_see_each_other(length, width, bias, activation):
    inputs = conv_inputs(length, width, bias=bias, states=False, packed=True)
    inputs |= {"activation": activation}
    expected = value_and_gradients(conv_by_position, inputs)
    assert_near(value_and_gradients(causal_conv1d_fn, inputs), expected, EXACT)


@pytest.mark.parametrize("states", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@needs_kernels
def test_convolutions_with_silu_run_compiled(bias, states, called):
    inputs = cast(conv_inputs(17, 4, bias=bias, states=states, packed=False), torch.float32)
    value_and_gradients(causal_conv1d_fn, inputs | {"activation": "silu"})
    assert called == ["recall_conv_forward", "recall_conv_backward"]


def test_final_states_are_written_where_they_are_wanted():
    inputs = conv_inputs(7, 4, bias=True, states=True, packed=False)
    room = torch.zeros(2, 5, 3, dtype=torch.float64)
    _, final = causal_conv1d_fn(**inputs, return_final_states=True, final_states_out=room)
    assert final is room
    assert torch.equal(room, inputs["x"][..., -3:])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_convolution_in_half_precision_comes_back_so(dtype):
    inputs = conv_inputs(7, 4, bias=True, states=True, packed=False) | {"activation": "silu"}
    rounded = cast(inputs, dtype)
    out = causal_conv1d_fn(**rounded)
    assert out.dtype == dtype
    exact = conv_by_position(**cast(rounded, torch.float64))
    assert_near({"out": out}, {"out": exact}, HALF)


@pytest.mark.parametrize("activation", [None, "silu"])
@pytest.mark.parametrize("steps", [[1] * 7, [3, 1, 3], [7]])
@pytest.mark.parametrize("kept", [3, 4, 9])
def test_updates_go_on_where_a_convolution_stopped(kept, steps, activation):
    inputs = conv_inputs(7, 4, bias=True, states=False, packed=False)
    x, weight, bias = inputs["x"], inputs["weight"], inputs["bias"]
    state = torch.zeros(2, 5, kept, dtype=torch.float64)
    outs = [causal_conv1d_update(p, state, weight, bias, activation) for p in x.split(steps, 2)]
    whole = causal_conv1d_fn(x, weight, bias, activation=activation)
    assert_near({"out": torch.cat(outs, dim=2)}, {"out": whole}, EXACT)
    everything = torch.cat([torch.zeros(2, 5, kept), x], dim=2)
    assert torch.equal(state, everything[..., -kept:])


def test_an_update_by_one_position_needs_no_axis_for_it():
    x, weight, state = torch.randn(2, 5), torch.randn(5, 4), torch.randn(2, 5, 4)
    again = state.clone()
    out = causal_conv1d_update(x, state, weight, activation="silu")
    assert torch.equal(out, causal_conv1d_update(x[..., None], again, weight, None, "silu")[..., 0])
    assert torch.equal(state, again)
    assert torch.equal(state[..., -1], x)


def test_a_window_of_one_keeps_nothing():
    x, weight, state = torch.randn(2, 5, 3), torch.randn(5, 1), torch.zeros(2, 5, 0)
    torch.testing.assert_close(causal_conv1d_update(x, state, weight), x * weight)


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
    for option in ("cache_seqlens", "conv_state_indices"):
        with pytest.raises(NotImplementedError, match="are not supported"):
            causal_conv1d_update(x, state, weight, **{option: index[:, 0]})


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("x", (2, 5)),
        ("x", (2, 4, 7)),
        ("weight", (5,)),
        ("bias", (4,)),
        ("seq_idx", (2, 6)),
        ("initial_states", (2, 5, 4)),
    ],
)
def test_a_convolution_of_shapes_that_do_not_fit_is_refused(name, shape):
    inputs = {"x": torch.zeros(2, 5, 7), "weight": torch.zeros(5, 4), name: torch.zeros(shape)}
    with pytest.raises(ValueError, match="x must be") as refused:
        causal_conv1d_fn(**inputs)
    assert str(shape) in str(refused.value)


@pytest.mark.parametrize("state", [(2, 5, 2), (1, 5, 3), (2, 4, 3)])
def test_an_update_of_a_state_that_does_not_fit_is_refused(state):
    with pytest.raises(ValueError, match="conv_state"):
        causal_conv1d_update(torch.zeros(2, 5), torch.zeros(state), torch.zeros(5, 4))


# transformers

REPLACED = [
    "causal_conv1d_fn",
    "causal_conv1d_update",
    "mamba_inner_fn",
    "mamba_selective_scan",
    "mamba_selective_state_update",
]


@pytest.fixture
def mamba() -> ModuleType:
    return pytest.importorskip("transformers.models.mamba.modeling_mamba")


def language_model(mamba: ModuleType, **options: Any) -> nn.Module:
    """Two small layers whose weights are large enough that every one of them matters."""
    sizes = {"vocab_size": 17, "hidden_size": 16, "state_size": 8, "num_hidden_layers": 2}
    tokens = {"bos_token_id": 0, "pad_token_id": 0, "eos_token_id": None}
    config = mamba.MambaConfig(**sizes, **tokens, **options, tie_word_embeddings=False)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = mamba.MambaForCausalLM(config).eval()
    rng = generator("weights")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=rng)
    return model


def tokens(batch: int, length: int) -> Tensor:
    return torch.randint(1, 17, (batch, length), generator=generator("tokens"))


def padded_on_the_left(prompt: Tensor) -> Tensor:
    mask = torch.ones_like(prompt)
    mask[0, : prompt.shape[1] // 2] = 0
    return mask


def logits_and_gradients(model: nn.Module, prompt: Tensor, mask: Tensor | None) -> Results:
    out = model(prompt, attention_mask=mask, labels=prompt)
    weights = dict(model.named_parameters())
    gradients = torch.autograd.grad(out.loss, list(weights.values()))
    return {"logits": out.logits.detach(), **dict(zip(weights, gradients, strict=True))}


OPTIONS = {
    "as it comes": {},
    "without biases": {"use_conv_bias": False},
    "with more biases": {"use_bias": True},
    "a wide window": {"conv_kernel": 9},
    "by mambapy": {"use_mambapy": True},
}


@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
@pytest.mark.parametrize("training", [False, True], ids=["evaluated", "trained"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_model_of_transformers_has_the_same_logits_and_gradients(
    mamba, options, training, masked, called
):
    model, prompt = language_model(mamba, **options).train(training), tokens(3, 21)
    mask = padded_on_the_left(prompt) if masked else None
    expected = logits_and_gradients(model, prompt, mask)
    assert called == []
    with use_in_transformers():
        actual = logits_and_gradients(model, prompt, mask)
    forward, backward = ["conv_forward", "scan_forward"], ["scan_backward", "conv_backward"]
    assert called == compiled(*forward * 2, *backward * 2)
    assert_near(actual, expected, CHAINED)


@pytest.mark.parametrize("length", [1, 2, 11])
def test_a_model_of_transformers_writes_the_same(mamba, length, called):
    model, prompt = language_model(mamba), tokens(3, length)

    def generate() -> Results:
        wanted = {
            "max_new_tokens": 12,
            "do_sample": False,
            "attention_mask": padded_on_the_left(prompt),
        }
        out = model.generate(prompt, **wanted, return_dict_in_generate=True, output_logits=True)
        return {"tokens": out.sequences, "logits": torch.stack(out.logits)}

    expected = generate()
    with use_in_transformers():
        actual = generate()
    by_token = ["conv_forward"] * 2 * 11
    assert called == compiled(*["conv_forward", "scan_forward"] * 2, *by_token)
    assert torch.equal(actual["tokens"], expected["tokens"])
    assert_near(actual, expected, CHAINED)
    assert len(actual["tokens"].unique()) > 4


def test_generation_without_a_cache_writes_the_same(mamba):
    model, prompt = language_model(mamba), tokens(2, 7)
    wanted = {"max_new_tokens": 8, "do_sample": False, "attention_mask": torch.ones_like(prompt)}
    with use_in_transformers():
        cached, uncached = (model.generate(prompt, **wanted, use_cache=c) for c in (True, False))
    assert torch.equal(cached, uncached)


def test_gradient_checkpointing_changes_nothing(mamba):
    model, prompt = language_model(mamba).train(), tokens(2, 9)
    with use_in_transformers():
        expected = logits_and_gradients(model, prompt, None)
        model.activation_checkpointing_enable()
        model(prompt, labels=prompt).loss.backward()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter.grad, expected[name]), name


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-5), (torch.bfloat16, HALF)])
def test_other_types_of_numbers_stay_close(mamba, dtype, tolerance):
    model, prompt = language_model(mamba).to(dtype), tokens(2, 9)
    expected = model(prompt).logits
    with use_in_transformers():
        assert_near({"logits": model(prompt).logits}, {"logits": expected}, tolerance)


def replaced_in(module: ModuleType) -> dict[str, Any]:
    return {name: vars(module)[name] for name in REPLACED}


def test_closing_puts_everything_back(mamba):
    before = replaced_in(mamba)
    with use_in_transformers():
        assert not before.items() & replaced_in(mamba).items()
    assert replaced_in(mamba) == before

    undo = use_in_transformers()
    with use_in_transformers():
        pass
    assert not before.items() & replaced_in(mamba).items()
    undo.close()
    undo.close()
    assert replaced_in(mamba) == before


def test_other_models_keep_their_functions(mamba):
    falcon = pytest.importorskip("transformers.models.falcon_mamba.modeling_falcon_mamba")
    before = replaced_in(falcon)
    with use_in_transformers():
        assert replaced_in(falcon) == before


@pytest.fixture
def theirs(mamba: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The operations that ran as transformers has them, by name and in order."""
    names: list[str] = []

    def list_calls_of(name: str, function: Callable[..., Any]) -> None:
        def listed(*arguments: Any, **options: Any) -> Any:
            names.append(name)
            return function(*arguments, **options)

        monkeypatch.setattr(mamba, name, listed)

    for name, function in replaced_in(mamba).items():
        list_calls_of(name, function)
    return names


def test_what_does_not_fit_goes_where_it_went_before(mamba, theirs, monkeypatch):
    prompt, model = tokens(2, 9), language_model(mamba)
    gelu = language_model(mamba, hidden_act="gelu")
    expected = gelu(prompt).logits
    theirs.clear()
    with use_in_transformers():
        model(prompt)
        assert theirs == []
        assert_near({"logits": gelu(prompt).logits}, {"logits": expected}, CHAINED)
        assert theirs == ["causal_conv1d_fn"] * 2

        theirs.clear()
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
        model(prompt)
        assert theirs == ["causal_conv1d_fn", "mamba_selective_scan"] * 2


def test_another_device_goes_where_it_went_before(mamba, theirs):
    model = language_model(mamba).to("meta").train()
    with use_in_transformers():
        model(tokens(2, 9).to("meta"))
    assert theirs == ["mamba_inner_fn", "causal_conv1d_fn", "mamba_selective_scan"] * 2


def test_packed_sequences_are_not_let_through_unseen(mamba, theirs):
    x, B, A = torch.zeros(1, 4, 6), torch.zeros(1, 3, 6), torch.zeros(4, 3)
    index = torch.zeros(1, 6, dtype=torch.int32)
    with use_in_transformers():
        mamba.mamba_selective_scan(x, x, A, B, B, delta_softplus=True, seq_idx=None)
        assert theirs == []
        with pytest.raises(ValueError, match="packed sequences"):
            mamba.mamba_selective_scan(x, x, A, B, B, delta_softplus=True, seq_idx=index)


def test_a_transformers_without_these_operations_is_refused(mamba, monkeypatch):
    monkeypatch.delattr(mamba, "mamba_selective_scan")
    before = dict(vars(mamba))
    with pytest.raises(ImportError, match="has no mamba_selective_scan for Mamba"):
        use_in_transformers()
    assert dict(vars(mamba)) == before


def test_transformers_is_only_imported_by_the_call():
    program = "import sys, recall_arena.compat; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
