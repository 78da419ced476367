"""The compiled attention is held to its definition in float64, the definition to PyTorch's own."""

import pytest
import torch
from kernel_checks import (
    Inputs,
    assert_identical,
    assert_near,
    exact,
    in_float64,
    needs_kernels,
    runs_compiled,
    value_and_gradients,
)
from torch import Tensor
from torch.nn import functional as F

from recall_arena.kernels import (
    causal_attention,
    causal_attention_definition,
    rotary_table,
)
from recall_arena.kernels.causal_attention import LONGEST
from recall_arena.seeds import generator

LENGTHS = [1, 2, 3, 15, 16, 17, 64, 100, 257]
SHAPES = sorted(  # length, queries, head_width, heads
    {(length, length, 8, 1) for length in LENGTHS}
    | {(length, 1, 8, 1) for length in LENGTHS}
    | {(17, 17, width, heads) for width in (1, 2, 4, 6, 16, 17, 64) for heads in (1, 3)}
    | {(100, 33, 20, 2), (65, 65, 64, 1), (9, 9, 256, 1)}
)
TOLERANCE = 1e-5  # of the largest number; scores of size 10 in float32 leave 1e-6 of a weight


def attention_inputs(
    length: int, queries: int, width: int, heads: int = 1, batch: int = 2, size: float = 1.0
) -> Inputs:
    rng = generator("attention", length, queries, width, heads)

    def normal(positions: int) -> Tensor:
        return size * torch.randn(batch, heads, positions, width, generator=rng)

    return {"q": normal(queries), "k": normal(length), "v": normal(length)}


def angles(length: int, width: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return rotary_table(torch.arange(length, dtype=dtype), width)


def rotary(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return causal_attention(q, k, v, angles(k.shape[2], k.shape[3], k.dtype))


def rotary_definition(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return causal_attention_definition(q, k, v, angles(k.shape[2], k.shape[3], k.dtype))


KINDS = {
    "plain": (causal_attention, causal_attention_definition),
    "rotary": (rotary, rotary_definition),
}
each_kind = pytest.mark.parametrize(("fast", "definition"), KINDS.values(), ids=KINDS)


@pytest.mark.one_in(2)
@each_kind
@pytest.mark.parametrize(("length", "queries", "width", "heads"), SHAPES)
@pytest.mark.usefixtures("instruction_set")
def test_the_compiled_attention_equals_its_definition(
    fast, definition, length, queries, width, heads
):
    if fast is rotary and width % 2:
        pytest.skip("RoPE rotates pairs")
    inputs = attention_inputs(length, queries, width, heads)
    assert runs_compiled(fast, inputs)
    # Where there is one key alone, its weight is 1 and the gradients of q and k are exactly 0.
    assert_near(value_and_gradients(fast, inputs), exact(definition, inputs), TOLERANCE)


@pytest.mark.parametrize("size", [10.0, 100.0])
@pytest.mark.usefixtures("instruction_set")
def test_saturated_weights_stay_finite_and_right(size):
    inputs = attention_inputs(33, 33, 8, size=size)
    actual = value_and_gradients(causal_attention, inputs)
    assert all(tensor.isfinite().all() for tensor in actual.values())
    expected = exact(causal_attention_definition, inputs)
    # A score of 10^4 is known to 10^-3 in float32, and so is the weight that follows from it.
    assert_near({"value": actual["value"]}, {"value": expected["value"]}, 1e-7 * size**2 + 1e-5)


@pytest.mark.parametrize("head", [1, 8, 64])
@pytest.mark.parametrize("length", [1, 2, 17, 100])
def test_the_definition_equals_torchs_own(length, head):
    def torchs(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    inputs = in_float64(attention_inputs(length, length, head, heads=3))
    expected = value_and_gradients(torchs, inputs)
    for name, tensor in value_and_gradients(causal_attention_definition, inputs).items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-12)


@each_kind
@pytest.mark.parametrize("length", [1, 2, 17, 100])
def test_the_last_queries_outputs_are_the_last_rows(fast, definition, length):
    inputs = attention_inputs(length, length, 8, heads=2)
    for queries in {1, (length + 1) // 2}:
        last = inputs | {"q": inputs["q"][:, :, -queries:]}
        assert_near({"": fast(**last)}, {"": fast(**inputs)[:, :, -queries:].double()}, TOLERANCE)


LAYOUTS = {
    "heads beside one another": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
    "slice of a wider tensor": lambda x: F.pad(x, (3, 2))[..., 3:-2],
    "every second position": lambda x: x.repeat_interleave(2, dim=2)[:, :, ::2],
    "every second number": lambda x: x.repeat_interleave(2, dim=3)[..., ::2],
    "one head expanded": lambda x: x[:, :1].expand(x.shape),
    "one number expanded": lambda x: x[:1, :1, :1, :1].expand(x.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@each_kind
@needs_kernels
def test_the_layout_in_memory_changes_nothing(fast, definition, layout):
    inputs = {name: layout(x) for name, x in attention_inputs(17, 17, 8, heads=3).items()}
    contiguous = {name: x.contiguous() for name, x in inputs.items()}
    assert_identical(value_and_gradients(fast, inputs), value_and_gradients(fast, contiguous))


@each_kind
@needs_kernels
def test_the_layout_of_the_arriving_gradient_changes_nothing(fast, definition):
    inputs = attention_inputs(17, 17, 8, heads=3)
    leaves = [x.requires_grad_() for x in inputs.values()]
    out = fast(*leaves)
    arriving = torch.randn(out.shape, generator=generator("arriving"))
    for laid_out in [layout(arriving) for layout in LAYOUTS.values()] + [
        torch.ones(()).expand(out.shape)
    ]:
        once = torch.autograd.grad(out, leaves, laid_out, retain_graph=True)
        again = torch.autograd.grad(out, leaves, laid_out.contiguous(), retain_graph=True)
        assert all(map(torch.equal, once, again))


# Determinism, and where PyTorch runs instead


@each_kind
@pytest.mark.usefixtures("instruction_set", "shared_out")
def test_repeats_and_threads_change_no_bit(fast, definition):
    inputs = attention_inputs(33, 33, 8, heads=3)
    torch.set_num_threads(1)
    first = value_and_gradients(fast, inputs)
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        assert_identical(value_and_gradients(fast, inputs), first)


@each_kind
@pytest.mark.usefixtures("instruction_set")
def test_a_sequence_does_not_depend_on_its_batch(fast, definition):
    inputs = attention_inputs(33, 33, 8, heads=3, batch=4)
    alone = {name: x[1:2] for name, x in inputs.items()}
    assert torch.equal(fast(**inputs)[1:2], fast(**alone))


@each_kind
@needs_kernels
def test_each_input_has_its_gradient_whichever_others_are_wanted(fast, definition):
    inputs = attention_inputs(17, 17, 8)
    everything = value_and_gradients(fast, inputs)
    for wanted in inputs:
        leaves = {name: x.detach().requires_grad_(name == wanted) for name, x in inputs.items()}
        out = fast(**leaves)
        out.backward(torch.randn(out.shape, generator=generator("arriving")))
        assert torch.equal(leaves[wanted].grad, everything[f"gradient of {wanted}"])


@pytest.mark.parametrize(("length", "width"), [(LONGEST + 1, 8), (5, 257)])
def test_sizes_beyond_the_kernel_run_as_pytorch_does(length, width):
    inputs = attention_inputs(length, length, width, batch=1)
    assert not runs_compiled(causal_attention, inputs)
    assert_near(
        value_and_gradients(causal_attention, inputs),
        exact(causal_attention_definition, inputs),
        TOLERANCE,
    )
    last = inputs | {"q": inputs["q"][:, :, -2:]}
    assert_near(
        {"": causal_attention(**last)},
        {"": causal_attention(**inputs)[:, :, -2:].double()},
        TOLERANCE,
    )


def test_float64_is_left_to_pytorch():
    assert not runs_compiled(causal_attention, in_float64(attention_inputs(9, 9, 8)))


@pytest.mark.parametrize(("batch", "length"), [(0, 17), (2, 0)])
def test_nothing_in_gives_nothing_out(batch, length):
    out = causal_attention(*(torch.zeros(batch, 2, length, 8) for _ in range(3)))
    assert out.shape == (batch, 2, length, 8)


@pytest.mark.parametrize(
    "shapes",
    [
        ((2, 1, 5, 8), (2, 1, 4, 8), (2, 1, 4, 8)),  # more queries than positions
        ((2, 1, 5, 8), (2, 1, 5, 8), (2, 1, 6, 8)),
        ((2, 1, 5, 8), (2, 1, 5, 4), (2, 1, 5, 4)),
    ],
)
def test_shapes_that_do_not_fit_are_refused(shapes):
    with pytest.raises(Exception, match=r"must be|Type-check error"):
        causal_attention(*(torch.zeros(shape) for shape in shapes))
