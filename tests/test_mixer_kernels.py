"""The mixers' kernels, from projection to projection, are held to their definitions in float64."""

import functools
from dataclasses import fields, replace
from pathlib import Path

import jaxtyping
import pytest
import torch
from kernel_checks import assert_identical, assert_near, needs_kernels
from torch import Tensor

from recall_arena.kernels import GatedDeltaLayer, MambaLayer, mix, native
from recall_arena.mixers import Attention, GatedDelta, GatedDeltaMixer, Mamba
from recall_arena.model import Block
from recall_arena.seeds import generator

TOLERANCE = 1e-5  # of the largest number: the weights' gradients have up to 10,000 terms
DIVIDED = 5e-5  # where an output is normalised, rounding is divided by outputs that are near zero

MIXERS = {
    "mamba": Mamba(),
    "mamba, no convolution": Mamba(window=1),
    "mamba, odd sizes": Mamba(state=5, expand=3, window=3),
    "attention": Attention(),
    "RoPE, two heads": Attention(heads=2, positions="rope"),
    "mamba, biases": Mamba(bias=True, conv_bias=False),
    "attention, biases": Attention(heads=2, bias=True),
    "CAT": Attention(q_window=3, v_window=2),
    "CAT, RoPE": Attention(positions="rope", q_window=4, k_window=16, v_window=4),
    "gated delta": GatedDelta(),
    "gated delta, odd sizes": GatedDelta(heads=2, key_width=3, expand=3, window=3),
    "gated delta, by products": GatedDelta(heads=2, key_width=33, expand=1),
    "gated delta, no convolution": GatedDelta(
        heads=4, window=1, gate="none", negative_eigenvalues=True
    ),
    "DeltaNet": GatedDelta(expand=1, decay="none", gate="none", negative_eigenvalues=True),
    "KDA": GatedDelta(heads=2, expand=1, decay="channel", gate="sigmoid"),
}
SHAPES = [  # batch, length, width
    *((2, length, 8) for length in (1, 2, 3, 15, 16, 17, 64, 100, 257)),
    *((3, 17, width) for width in (4, 12, 16, 20, 64)),
    (70, 9, 8),  # more sequences than portions
    (17, 65, 64),
]
READINGS = {
    "every position": lambda block, x: block.mixer(x),
    "last position": lambda block, x: block.mixer(x, last=True),
}

each_mixer = pytest.mark.parametrize("name", MIXERS)
each_reading = pytest.mark.parametrize("reading", READINGS)


def made(name: str, width: int) -> Block:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        block = Block(width, MIXERS[name].build(width))
        torch.nn.init.normal_(block.norm.weight)
        torch.nn.init.normal_(block.norm.bias)
        return block


def input_of(batch: int, length: int, width: int) -> Tensor:
    """Rows of which each has a mean and a size of its own."""
    rng = generator("mixer", batch, length, width)
    size, mean = (
        torch.rand(batch, length, 1, generator=rng),
        torch.rand(1, length, 1, generator=rng),
    )
    return (0.5 + size) * torch.randn(batch, length, width, generator=rng) + mean


def read(block: Block, x: Tensor, reading: str) -> Tensor:
    return READINGS[reading](block, x)


def weights_of(block: Block) -> dict[str, Tensor]:
    return dict(block.mixer.named_parameters())


def value_and_gradients(block: Block, x: Tensor, reading: str) -> dict[str, Tensor]:
    x = x.detach().requires_grad_()
    out = read(block, x, reading)
    arriving = torch.randn(out.shape, generator=generator("arriving")).to(out.dtype)
    weights = weights_of(block)
    gradients = torch.autograd.grad(out, [x, *weights.values()], arriving)
    return {"value": out.detach(), **dict(zip(["x", *weights], gradients, strict=True))}


def runs_compiled(out: Tensor) -> bool:
    return type(out.grad_fn).__name__.startswith("_Compiled")


@functools.cache  # computed once for all instruction sets
def exact(name: str, reading: str, batch: int, length: int, width: int) -> dict[str, Tensor]:
    block, x = made(name, width), input_of(batch, length, width)
    return value_and_gradients(block.double(), x.double(), reading)


@pytest.mark.one_in(9)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@each_reading
@each_mixer
@pytest.mark.usefixtures("instruction_set")
def test_values_and_gradients_are_those_of_the_definition(name, reading, shape):
    block, x = made(name, shape[2]), input_of(*shape)
    assert runs_compiled(block.mixer(x))
    tolerance = DIVIDED if isinstance(block.mixer, GatedDeltaMixer) else TOLERANCE
    found = value_and_gradients(block, x, reading)
    assert_near(found, exact(name, reading, *shape), tolerance)


@pytest.mark.one_in(2)
@each_reading
@each_mixer
@pytest.mark.usefixtures("instruction_set", "shared_out")
def test_repeats_and_threads_change_no_bit(name, reading):
    block, x = made(name, 16), input_of(37, 33, 16)
    torch.set_num_threads(1)
    first = value_and_gradients(block, x, reading)
    for threads in (1, 2, 3, 40):
        torch.set_num_threads(threads)
        assert_identical(value_and_gradients(block, x, reading), first)


@each_reading
@each_mixer
@needs_kernels
def test_a_sequence_does_not_depend_on_its_batch(name, reading):
    block, x = made(name, 8), input_of(7, 33, 8)
    assert torch.equal(read(block, x, reading)[2:3], read(block, x[2:3], reading))


@each_reading
@each_mixer
@needs_kernels
def test_without_gradients_the_outputs_are_the_same(name, reading):
    block, x = made(name, 8), input_of(7, 33, 8)
    with torch.no_grad():
        assert torch.equal(read(block, x, reading), read(block.requires_grad_(True), x, reading))
        alone = read(block, x, reading)
    assert torch.equal(read(block, x, reading).detach(), alone)


@each_reading
@each_mixer
@needs_kernels
def test_each_weight_has_its_gradient_whichever_others_are_wanted(name, reading):
    block, x = made(name, 8), input_of(3, 17, 8)
    everything, weights = value_and_gradients(block, x, reading), weights_of(block)
    for wanted in weights:
        for other, weight in weights.items():
            weight.grad = None
            weight.requires_grad_(other == wanted)
        out = read(block, x, reading)
        out.backward(torch.randn(out.shape, generator=generator("arriving")))
        assert torch.equal(weights[wanted].grad, everything[wanted])


@each_reading
@each_mixer
@needs_kernels
def test_the_layout_in_memory_changes_nothing(name, reading):
    block, x = made(name, 8), input_of(3, 17, 8)
    expected = value_and_gradients(block, x, reading)
    turned = x.transpose(0, 1).contiguous().transpose(0, 1)
    assert_identical(value_and_gradients(block, turned, reading), expected)
    leaf = x.detach().requires_grad_()
    arriving = torch.ones(()).expand(read(block, leaf, reading).shape)
    (once,) = torch.autograd.grad(read(block, leaf, reading), leaf, arriving)
    (again,) = torch.autograd.grad(read(block, leaf, reading), leaf, arriving.contiguous())
    assert torch.equal(once, again)


@each_reading
@each_mixer
def test_nothing_in_gives_nothing_out(name, reading):
    block = made(name, 8)
    assert read(block, torch.zeros(0, 5, 8), reading).shape[0] == 0
    if "last" not in reading:
        assert read(block, torch.zeros(2, 0, 8), reading).shape == (2, 0, 8)


@each_mixer
def test_float64_runs_as_the_definition(name):
    block, x = made(name, 8).double(), input_of(2, 5, 8).double()
    assert not runs_compiled(block.mixer(x))


def test_sizes_beyond_the_kernel_run_as_the_definition():
    x = input_of(2, 5, 8)
    assert not runs_compiled(Mamba(state=native.LARGEST_STATE + 1).build(8)(x))
    assert not runs_compiled(Mamba(window=native.LARGEST_WINDOW + 1).build(8)(x))
    assert not runs_compiled(Attention().build(8)(input_of(1, 513, 8)))
    assert not runs_compiled(GatedDelta(window=native.LARGEST_WINDOW + 1).build(8)(x))


@pytest.mark.parametrize("wrong", [field.name for field in fields(MambaLayer)])
def test_a_mamba_weight_that_does_not_fit_is_refused(wrong):
    layer = Mamba(bias=True).build(8).layer()
    assert layer is not None
    with pytest.raises(Exception, match=r"must be|Type-check error"):
        mix(replace(layer, **{wrong: getattr(layer, wrong)[:-1]}), input_of(2, 5, 8))


@pytest.mark.parametrize("wrong", [field.name for field in fields(GatedDeltaLayer)][:-1])
def test_a_gated_delta_weight_that_does_not_fit_is_refused(wrong):
    layer = GatedDelta(heads=2).build(8).layer()
    assert layer is not None
    with pytest.raises(Exception, match=r"must be|Type-check error"):
        mix(replace(layer, **{wrong: getattr(layer, wrong)[:-1]}), input_of(2, 5, 8))


def test_a_decay_needs_both_of_its_weights():
    layer = GatedDelta().build(8).layer()
    assert layer is not None
    with pytest.raises(ValueError, match="come together"):
        mix(replace(layer, A_log=None), input_of(2, 5, 8))


@pytest.mark.parametrize(
    ("wrong", "shape"),
    [
        ("in_proj", (24, 7)),
        ("in_proj", (23, 8)),
        ("out_proj", (8, 7)),
        ("in_bias", (8,)),
        ("out_bias", (24,)),
        ("q_conv", (8, 2, 4)),
        ("v_conv", (4, 1, 4)),
    ],
)
def test_an_attention_weight_that_does_not_fit_is_refused(wrong, shape):
    layer = Attention(bias=True, q_window=4, k_window=4, v_window=4).build(8).layer()
    assert layer is not None
    with pytest.raises(Exception, match=r"must be|Type-check error"):
        mix(replace(layer, **{wrong: torch.zeros(shape)}), input_of(2, 5, 8))


@pytest.mark.parametrize(("heads", "base"), [(3, None), (0, None), (8, 1e4)])
def test_heads_that_do_not_fit_are_refused(heads, base):
    layer = Attention().build(8).layer()
    assert layer is not None
    with pytest.raises(ValueError, match="heads must divide"):
        mix(replace(layer, heads=heads, base=base), input_of(2, 5, 8))


@needs_kernels
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="Linux tells how many pages")
@pytest.mark.parametrize(
    ("calls", "pages"),  # of 4 kB: 1.6 kB a call would be seen, or two hundred bytes
    [(500, 200), pytest.param(10_000, 500, marks=pytest.mark.slow)],
)
def test_many_calls_leave_no_memory_behind(calls, pages, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as outside of tests
    blocks = [made(name, 8) for name in ("mamba", "RoPE, two heads", "gated delta")]
    x = input_of(2, 9, 8)

    def in_use_after(calls: int) -> int:
        for _ in range(calls):
            for block in blocks:
                block.mixer(x).sum().backward()
        return int(Path("/proc/self/statm").read_text().split()[1])

    before = in_use_after(300)
    assert in_use_after(calls) - before < pages
