"""The scan and the convolution are held to their definitions in float64, the definitions to
other people's code.
"""

import functools
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import files
from pathlib import Path

import numpy as np
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
    runs_compiled,
    value_and_gradients,
)
from scipy.linalg import solve_banded
from scipy.signal import lfilter
from scipy.special import expit
from torch import Tensor
from torch.nn import functional as F

from recall_arena.kernels import (
    causal_conv,
    causal_conv_definition,
    continued_scan,
    continued_scan_definition,
    last_selective_scan,
    native,
    selective_scan,
    selective_scan_definition,
)
from recall_arena.seeds import generator

LENGTHS = [1, 2, 3, 15, 16, 17, 64, 100, 257]
SCANS = sorted(  # length, channels, state
    {(length, 5, 16) for length in LENGTHS}
    | {(17, 5, 3)}
    | {(17, channels, state) for channels in (1, 5, 16, 33) for state in (1, 8, 16, 64)}
    | {(100, 16, 8), (257, 33, 64), (1, 1, 1), (9, 16, 256)}
)
CONVS = sorted(  # length, channels, window
    {(length, 5, 4) for length in [*LENGTHS, 6, 10]}
    | {(17, channels, window) for channels in (1, 5, 16, 33) for window in (1, 3, 4, 16)}
    | {(257, 33, 4), (3, 33, 16)}
)


def scan_inputs(length: int, channels: int, state: int, batch: int = 2) -> Inputs:
    rng = generator("scan", length, channels, state)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng)

    inner, selection = (batch, length, channels), (batch, length, state)
    return {
        "u": normal(*inner),
        "delta": normal(*inner),
        "A": -(1.5 * normal(channels, state)).exp(),  # from a memory of 100 steps to none
        "B": normal(*selection),
        "C": normal(*selection),
        "D": normal(channels),
        "z": normal(*inner),
        "delta_bias": normal(channels) - 1,
    }


def conv_inputs(length: int, channels: int, window: int, batch: int = 2) -> Inputs:
    rng = generator("conv", length, channels, window)
    return {
        "x": torch.randn(batch, length, channels, generator=rng),
        "weight": torch.randn(channels, window, generator=rng),
        "bias": torch.randn(channels, generator=rng),
    }


def last_scan_definition(**inputs: Tensor | None) -> Tensor:
    y = selective_scan_definition(**(inputs | {"z": None}))[:, -1]
    return y if inputs["z"] is None else y * F.silu(inputs["z"])


def last_scan_inputs(length: int, channels: int, state: int, batch: int = 2) -> Inputs:
    inputs = scan_inputs(length, channels, state, batch)
    return inputs | {"z": inputs["z"][:, -1]}


OPERATIONS = {
    "scan": (selective_scan, selective_scan_definition, scan_inputs(17, 5, 16, batch=4)),
    "ungated scan": (
        selective_scan,
        selective_scan_definition,
        scan_inputs(17, 5, 8, batch=4) | {"z": None},
    ),
    "last scan": (last_selective_scan, last_scan_definition, last_scan_inputs(17, 5, 16, batch=4)),
    "conv": (causal_conv, causal_conv_definition, conv_inputs(17, 5, 4, batch=4)),
    "wide conv": (causal_conv, causal_conv_definition, conv_inputs(17, 5, 7, batch=4)),
}
each_operation = pytest.mark.parametrize(
    ("fast", "definition", "inputs"), OPERATIONS.values(), ids=OPERATIONS
)


# The compiled kernels against the definitions


@functools.cache  # computed once for all instruction sets
def exact_scan(length: int, channels: int, state: int, gated: bool) -> dict[str, Tensor]:
    gate = {} if gated else {"z": None}
    return exact(selective_scan_definition, scan_inputs(length, channels, state) | gate)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("gated", [True, False], ids=["gated", "ungated"])
@pytest.mark.parametrize(("length", "channels", "state"), SCANS)
@pytest.mark.usefixtures("instruction_set")
def test_the_compiled_scan_equals_its_definition(length, channels, state, gated):
    inputs = scan_inputs(length, channels, state) | ({} if gated else {"z": None})
    assert runs_compiled(selective_scan, inputs)
    actual = value_and_gradients(selective_scan, inputs)
    assert all(tensor.dtype == torch.float32 for tensor in actual.values())
    assert_near(actual, exact_scan(length, channels, state, gated))


@pytest.mark.one_in(2)
@pytest.mark.parametrize("gated", [True, False], ids=["gated", "ungated"])
@pytest.mark.parametrize(("length", "channels", "state"), SCANS)
@pytest.mark.usefixtures("instruction_set")
def test_the_compiled_last_output_of_a_scan_equals_its_definition(length, channels, state, gated):
    inputs = last_scan_inputs(length, channels, state) | ({} if gated else {"z": None})
    assert runs_compiled(last_selective_scan, inputs)
    # Few numbers, so the largest of them may be small beside the terms that they are sums of.
    actual = value_and_gradients(last_selective_scan, inputs)
    assert_near(actual, exact(last_scan_definition, inputs), 3 * TOLERANCE)


def test_a_scan_has_no_last_output_without_positions():
    with pytest.raises(ValueError, match="must be"):
        last_selective_scan(
            **last_scan_inputs(1, 5, 16)
            | {
                name: torch.zeros(2, 0, size)
                for name, size in {"u": 5, "delta": 5, "B": 16, "C": 16}.items()
            }
        )


@pytest.mark.parametrize("cuts", [[17], [8, 9], [1, 2, 3, 11], [16, 1]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.usefixtures("instruction_set")
def test_a_scan_can_be_continued_where_it_was_cut(cuts, dtype):
    inputs = {name: x.to(dtype) for name, x in scan_inputs(17, 21, 16).items()}
    whole, h, parts, begin = selective_scan(**inputs), None, [], 0
    for length in cuts:
        part = {
            name: x[:, begin : begin + length] if x.ndim == 3 else x for name, x in inputs.items()
        }
        out, h = continued_scan(**part, h=h)
        parts.append(out)
        begin += length
    if dtype == torch.float32:
        assert torch.equal(torch.cat(parts, dim=1), whole)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=0, atol=1e-12)
    _, end = continued_scan_definition(
        **in_float64(inputs), h=torch.zeros(2, 21, 16, dtype=torch.float64)
    )
    assert_near({"state": h}, {"state": end})


@functools.cache
def exact_conv(length: int, channels: int, window: int) -> dict[str, Tensor]:
    return exact(causal_conv_definition, conv_inputs(length, channels, window))


@pytest.mark.one_in(2)
@pytest.mark.parametrize(("length", "channels", "window"), CONVS)
@pytest.mark.usefixtures("instruction_set")
def test_the_compiled_convolution_equals_its_definition(length, channels, window):
    inputs = conv_inputs(length, channels, window)
    assert runs_compiled(causal_conv, inputs)
    actual = value_and_gradients(causal_conv, inputs)
    assert all(tensor.dtype == torch.float32 for tensor in actual.values())
    assert_near(actual, exact_conv(length, channels, window))


@pytest.mark.parametrize("A", [-1000.0, -1.0, -1e-6])
@pytest.mark.parametrize("deltas", [[-100.0], [100.0], [1000.0], [-100.0, 0.0, 100.0, 1000.0]])
@pytest.mark.usefixtures("instruction_set")
def test_extreme_time_steps_stay_finite_and_right(deltas, A):
    inputs = scan_inputs(17, 5, 16)
    choice = torch.randint(len(deltas), inputs["u"].shape, generator=generator("choice"))
    inputs["delta"] = torch.tensor(deltas)[choice]
    inputs["A"] = torch.full_like(inputs["A"], A)
    inputs["delta_bias"] = torch.zeros(5)
    actual = value_and_gradients(selective_scan, inputs)
    assert all(tensor.isfinite().all() for tensor in actual.values())
    assert_near(actual, exact(selective_scan_definition, inputs))


@pytest.mark.parametrize("size", [50.0, 1e4])
@pytest.mark.usefixtures("instruction_set")
def test_saturated_gates_stay_finite_and_right(size):
    scan = scan_inputs(17, 5, 16)
    scan["z"] = scan["z"] * size
    conv = conv_inputs(17, 5, 4)
    conv["x"] = conv["x"] * size
    assert_near(value_and_gradients(selective_scan, scan), exact(selective_scan_definition, scan))
    assert_near(value_and_gradients(causal_conv, conv), exact(causal_conv_definition, conv))


@pytest.mark.parametrize("name", ["u", "delta", "B", "C", "z"])
@pytest.mark.usefixtures("instruction_set")
def test_a_nan_shows_where_the_definition_shows_it(name):
    inputs = scan_inputs(17, 5, 16)
    inputs[name] = inputs[name].clone()
    inputs[name][0, 9, 2] = torch.nan
    expected = selective_scan_definition(**inputs).isnan()
    assert expected.any()
    assert torch.equal(selective_scan(**inputs).isnan(), expected)


# Layouts in memory

in_sequences = {name: each for name, each in OPERATIONS.items() if name != "last scan"}
each_layout_of = pytest.mark.parametrize(
    ("fast", "definition", "inputs"), in_sequences.values(), ids=in_sequences
)

LAYOUTS = {
    "slice of a wider tensor": lambda x: F.pad(x, (3, 2))[..., 3:-2],
    "channels before positions": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
    "positions before sequences": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "every second sequence": lambda x: x.repeat_interleave(2, dim=0)[::2],
    "every second position": lambda x: x.repeat_interleave(2, dim=1)[:, ::2],
    "every second channel": lambda x: x.repeat_interleave(2, dim=2)[..., ::2],
    "part of the positions": lambda x: F.pad(x, (0, 0, 1, 1))[:, 1:-1],
    "the last position": lambda x: x[:, -1:],
    "one sequence of several": lambda x: x[1:2],
    "one sequence expanded": lambda x: x[:1].expand(x.shape),
    "one position expanded": lambda x: x[:, :1].expand(x.shape),
    "one channel expanded": lambda x: x[..., :1].expand(x.shape),
    "one number expanded": lambda x: x[:1, :1, :1].expand(x.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@each_layout_of
@needs_kernels
def test_the_layout_in_memory_changes_nothing(fast, definition, inputs, layout):
    laid_out = {
        name: layout(x) if x is not None and x.ndim == 3 else x for name, x in inputs.items()
    }
    contiguous = {name: None if x is None else x.contiguous() for name, x in laid_out.items()}
    actual = value_and_gradients(fast, laid_out)
    assert_identical(actual, value_and_gradients(fast, contiguous))
    assert_near(actual, exact(definition, contiguous))


@each_operation
@needs_kernels
def test_the_layout_of_the_parameters_changes_nothing(fast, definition, inputs):
    laid_out = {
        name: x.t().contiguous().t() if x is not None and x.ndim == 2 else x
        for name, x in inputs.items()
    } | {
        name: x.repeat_interleave(3)[::3]
        for name, x in inputs.items()
        if x is not None and x.ndim == 1
    }
    assert_identical(value_and_gradients(fast, laid_out), value_and_gradients(fast, inputs))


@each_layout_of
@needs_kernels
def test_the_layout_of_the_arriving_gradient_changes_nothing(fast, definition, inputs):
    leaves = {n: None if x is None else x.detach().requires_grad_() for n, x in inputs.items()}
    wanted = [leaf for leaf in leaves.values() if leaf is not None]
    out = fast(**leaves)
    arriving = torch.randn(out.shape, generator=generator("arriving"))
    layouts = [arriving, *(layout(arriving) for layout in LAYOUTS.values())]
    layouts.append(torch.ones(()).expand(out.shape))  # what sum() sends
    for laid_out in layouts:
        if laid_out.shape == out.shape:
            once = torch.autograd.grad(out, wanted, laid_out, retain_graph=True)
            again = torch.autograd.grad(out, wanted, laid_out.contiguous(), retain_graph=True)
            assert all(map(torch.equal, once, again))


@needs_kernels
def test_a_slice_of_a_wider_tensor_is_not_copied():
    wider = torch.randn(2, 17, 32)
    u, z = wider.chunk(2, dim=-1)
    assert native.rows(u) is u
    assert native.rows(z) is z


# Determinism


@each_operation
@pytest.mark.usefixtures("instruction_set")
def test_repeats_are_bit_identical(fast, definition, inputs):
    first = value_and_gradients(fast, inputs)
    for _ in range(3):
        assert_identical(value_and_gradients(fast, inputs), first)


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.usefixtures("instruction_set", "shared_out")
def test_the_number_of_threads_changes_nothing(batch):
    for fast, inputs in [
        (selective_scan, scan_inputs(33, 5, 16, batch)),
        (causal_conv, conv_inputs(33, 5, 4, batch)),
    ]:
        torch.set_num_threads(1)
        alone = value_and_gradients(fast, inputs)
        for threads in (2, 3):
            torch.set_num_threads(threads)
            assert native.threads(batch * 33 * 5) == threads
            assert_identical(value_and_gradients(fast, inputs), alone)


@each_operation
@pytest.mark.usefixtures("instruction_set")
def test_a_sequence_does_not_depend_on_its_batch(fast, definition, inputs):
    several = len(inputs[next(iter(inputs))])
    alone = {n: x[1:2] if x is not None and len(x) == several else x for n, x in inputs.items()}
    assert torch.equal(fast(**inputs)[1:2], fast(**alone))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.usefixtures("shared_out")
@needs_kernels
def test_a_forked_process_computes_the_same_after_threads_ran():
    torch.set_num_threads(2)
    inputs = scan_inputs(17, 5, 16)
    expected = selective_scan(**inputs).numpy().tobytes()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(20)  # a child that waits for a thread that it does not have ends here
        same = False
        try:
            same = selective_scan(**inputs).numpy().tobytes() == expected
        finally:
            os._exit(0 if same else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# What is differentiated


@each_operation
@needs_kernels
def test_each_input_has_its_gradient_whichever_others_are_wanted(fast, definition, inputs):
    everything = value_and_gradients(fast, inputs)
    names = [name for name, x in inputs.items() if x is not None]
    subsets = [{name} for name in names] + [set(names) - {name} for name in names]
    for wanted in subsets:
        leaves = {
            n: None if x is None else x.detach().requires_grad_(n in wanted)
            for n, x in inputs.items()
        }
        out = fast(**leaves)
        out.backward(torch.randn(out.shape, generator=generator("arriving")))
        for name in names:
            if name in wanted:
                assert torch.equal(leaves[name].grad, everything[f"gradient of {name}"]), name
            else:
                assert leaves[name].grad is None, name


@each_operation
@needs_kernels
def test_the_value_is_the_same_where_no_gradient_is_wanted(fast, definition, inputs):
    out = fast(**inputs)
    assert not out.requires_grad
    assert torch.equal(out, value_and_gradients(fast, inputs)["value"])


@each_operation
@needs_kernels
def test_second_derivatives_are_those_of_the_definition(fast, definition, inputs):
    """As a Hessian-vector product takes them: the gradient of a product with the gradient."""

    def second(function: Callable[..., Tensor], inputs: Inputs) -> dict[str, Tensor]:
        leaves = {n: None if x is None else x.detach().requires_grad_() for n, x in inputs.items()}
        wanted = {name: leaf for name, leaf in leaves.items() if leaf is not None}
        loss = function(**leaves).square().sum()
        first = torch.autograd.grad(loss, list(wanted.values()), create_graph=True)
        product = sum((g * torch.cos(x)).sum() for g, x in zip(first, wanted.values(), strict=True))
        return dict(zip(wanted, torch.autograd.grad(product, list(wanted.values())), strict=True))

    assert_near(second(fast, inputs), second(definition, in_float64(inputs)), 1e-4)


# Where the definition runs instead


@each_operation
def test_float64_runs_the_definition(fast, definition, inputs):
    assert not runs_compiled(fast, in_float64(inputs))
    assert_identical(value_and_gradients(fast, in_float64(inputs)), exact(definition, inputs))


@pytest.mark.parametrize(
    ("fast", "definition", "inputs"),
    [
        (selective_scan, selective_scan_definition, scan_inputs(9, 5, 257)),
        (causal_conv, causal_conv_definition, conv_inputs(33, 5, 17)),
    ],
    ids=["257 states", "window 17"],
)
def test_sizes_beyond_the_kernels_run_the_definition(fast, definition, inputs):
    assert not runs_compiled(fast, inputs)
    assert_near(value_and_gradients(fast, inputs), exact(definition, inputs))


@pytest.mark.parametrize(("batch", "length"), [(0, 17), (2, 0), (0, 0)])
@pytest.mark.parametrize(
    ("fast", "sizes", "make"),
    [(selective_scan, (5, 16), scan_inputs), (causal_conv, (5, 4), conv_inputs)],
    ids=["scan", "conv"],
)
def test_nothing_in_gives_nothing_out(fast, sizes, make, batch, length):
    inputs = make(length, *sizes, batch)
    leaves = {name: x.detach().requires_grad_() for name, x in inputs.items()}
    out = fast(**leaves)
    out.sum().backward()
    assert out.shape == (batch, length, 5)
    assert all(leaf.grad is None or (leaf.grad == 0).all() for leaf in leaves.values())


# The process around the kernels


def test_kernels_that_were_installed_are_found():
    """Without this, an installation whose kernels are lost skips most of this file."""
    installed = [file for file in files("recall-arena") or [] if "_recall_kernels" in file.name]
    if not installed or os.environ.get(native.CHOICE) == "definition":
        pytest.skip("no compiled kernels are installed, or the definitions were asked for")
    assert native.LIBRARY is not None, native.REASON


@pytest.fixture
def default_float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@each_operation
@pytest.mark.usefixtures("default_float64")
@needs_kernels
def test_the_default_type_of_numbers_changes_nothing(fast, definition, inputs):
    actual = value_and_gradients(fast, inputs)
    assert all(tensor.dtype == torch.float32 for tensor in actual.values())
    assert_near(actual, exact(definition, inputs))


@needs_kernels
def test_numbers_below_the_normal_range_still_exist_after_a_call():
    inputs = scan_inputs(17, 5, 16)
    value_and_gradients(selective_scan, inputs)
    assert (torch.full((64,), 1e-40) * 0.5 > 0).all()


@needs_kernels
def test_an_instruction_set_that_does_not_exist_is_refused():
    before = native.instruction_set()
    with pytest.raises(ValueError, match="no kernels for instruction set 'mmx' here"):
        native.choose_instruction_set("mmx")
    assert native.instruction_set() == before


def test_both_sides_of_the_interface_agree_on_sizes():
    header = Path(__file__).parents[1] / "native" / "operations.hpp"
    declared = dict(re.findall(r"constexpr int (\w+) = (\d+);", header.read_text()))
    assert {name: int(value) for name, value in declared.items()} == {
        "scan_chunk": native.SCAN_CHUNK,
        "delta_chunk": native.DELTA_CHUNK,
        "delta_by_products": native.DELTA_BY_PRODUCTS,
        "largest_state": native.LARGEST_STATE,
        "largest_window": native.LARGEST_WINDOW,
        "largest_head": native.LARGEST_HEAD,
    }


# The definitions, and with them the kernels, against independent implementations


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_scan_that_selects_nothing_is_a_recursive_filter(dtype):
    """With one state and the same delta, B and C at each step: h_t = a h_{t-1} + Delta B u_t."""
    u = torch.randn(1, 100, 1, generator=generator("filter"), dtype=torch.float64).to(dtype)
    constants = {"delta": -1.5, "B": 0.7, "C": -1.3}
    columns = {name: torch.full_like(u, value) for name, value in constants.items()}
    A, D, bias = torch.tensor([[-0.2]]), torch.tensor([0.4]), torch.tensor([0.1])
    out = selective_scan(
        u=u, **columns, A=A.to(dtype), D=D.to(dtype), z=None, delta_bias=bias.to(dtype)
    )

    step = np.logaddexp(0, -1.5 + 0.1)
    signal = u.double().numpy().ravel()
    expected = lfilter([step * 0.7 * -1.3], [1, -np.exp(step * -0.2)], signal) + 0.4 * signal
    torch.testing.assert_close(out.double().ravel(), torch.from_numpy(expected), rtol=0, atol=5e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_states_of_a_scan_solve_a_bidiagonal_system(dtype):
    """h_t - a_t h_{t-1} = drive_t for all t at once, by LAPACK."""
    inputs = scan_inputs(64, 3, 4, batch=1)
    u, delta, A, B, C, D, z, bias = (x.double().numpy() for x in inputs.values())
    step = np.logaddexp(0, delta[0] + bias)
    y = D * u[0]
    for channel, n in np.ndindex(A.shape):
        decay = np.exp(step[:, channel] * A[channel, n])
        bands = np.stack([np.ones(64), -np.append(decay[1:], 0)])
        drive = step[:, channel] * u[0, :, channel] * B[0, :, n]
        y[:, channel] += C[0, :, n] * solve_banded((1, 0), bands, drive)
    expected = y * z[0] * expit(z[0])

    out = selective_scan(**{name: x.to(dtype) for name, x in inputs.items()})
    tolerance = 1e-12 if dtype == torch.float64 else TOLERANCE
    assert_near({"value": out[0]}, {"value": torch.from_numpy(expected)}, tolerance)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_convolution_is_a_causal_filter_whose_last_weight_meets_the_present(dtype):
    inputs = conv_inputs(64, 3, 4, batch=1)
    x, weight, bias = (tensor.double().numpy() for tensor in inputs.values())
    s = np.stack([lfilter(weight[c, ::-1], [1], x[0, :, c]) + bias[c] for c in range(3)], axis=1)
    out = causal_conv(**{name: tensor.to(dtype) for name, tensor in inputs.items()})
    tolerance = 1e-12 if dtype == torch.float64 else TOLERANCE
    assert_near({"value": out[0]}, {"value": torch.from_numpy(s * expit(s))}, tolerance)
