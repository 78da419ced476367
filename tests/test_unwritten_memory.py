"""No result depends on what memory held before: scratch and outputs are filled first."""

import ctypes
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from kernel_checks import needs_kernels, value_and_gradients
from operations import OPERATIONS
from torch import Tensor

from recall_arena.compiled import Compiled
from recall_arena.kernels import continued_scan, native
from recall_arena.model import SequenceModel, named
from recall_arena.seeds import generator
from recall_arena.zoo import ZOO

PATTERNS = {
    "nan": 0x7FC00000,
    "every bit": 0xFFFFFFFF,
    "infinity": 0x7F800000,
    "large": 0x7149F2CA,  # 1e30
    "minus one": 0xBF800000,
}

pytestmark = [needs_kernels, pytest.mark.usefixtures("instruction_set", "shared_out")]
each_thread_count = pytest.mark.parametrize("threads", [1, 2])


@contextmanager
def filled_with(pattern: int) -> Iterator[None]:
    """All memory that the kernels are given, their scratch and new tensors, holds the pattern."""
    new_empty = Tensor.new_empty
    signed = struct.unpack("i", struct.pack("I", pattern))[0]

    def filled(like: Tensor, *shape: object, **rest: object) -> Tensor:
        made = new_empty(like, *shape, **rest)
        assert made.dtype == torch.float32
        made.view(torch.int32).fill_(signed)
        return made

    Tensor.new_empty = filled  # type: ignore[method-assign]
    native.LIBRARY.recall_fill_scratch(1, ctypes.c_uint32(pattern))
    try:
        yield
    finally:
        Tensor.new_empty = new_empty  # type: ignore[method-assign]
        native.LIBRARY.recall_fill_scratch(0, ctypes.c_uint32(0))


def assert_same_over_patterns(results: Callable[[], dict[str, Tensor]]) -> None:
    expected = results()
    for name, pattern in PATTERNS.items():
        with filled_with(pattern):
            found = results()
        assert found.keys() == expected.keys()
        for each, x in expected.items():
            assert torch.equal(x, found[each]), f"{each}, memory filled with {name}"


@pytest.mark.one_in(6)
@each_thread_count
@pytest.mark.parametrize("length", [1, 8, 19])
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation(name, length, threads):
    torch.set_num_threads(threads)
    operation = OPERATIONS[name]
    inputs = operation.inputs(length)
    assert_same_over_patterns(lambda: value_and_gradients(operation.compiled, inputs))


def test_a_continued_scan():
    inputs = OPERATIONS["scan"].inputs(19)
    h = torch.randn(6, 10, 16, generator=generator("state"))
    names = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")

    def results() -> dict[str, Tensor]:
        y, state = continued_scan(*(inputs[name] for name in names), h)
        return {"y": y, "state": state}

    assert_same_over_patterns(results)


@pytest.mark.one_in(6)
@each_thread_count
@pytest.mark.parametrize("width", [8, 20])
@pytest.mark.parametrize("batch", [3, 37])  # in the larger batch each token is projected once
@pytest.mark.parametrize("name", ZOO)
def test_a_model(name, batch, width, threads):
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = SequenceModel(named(name, width=width, vocabulary=5))
    tokens = torch.randint(5, (batch, 19), generator=generator("tokens"))

    where = torch.tensor([[3, 18, 3]]).expand(batch, 3)

    def asked_elsewhere() -> dict[str, Tensor]:
        compiled = Compiled(model)
        loss = compiled.loss_and_gradient(tokens, tokens[:, :3], where).detach()
        gradients = {n: w.grad.clone() for n, w in model.named_parameters() if w.grad is not None}
        return {"logits": compiled.logits(tokens, where), "loss": loss, **gradients}

    def results() -> dict[str, Tensor]:
        compiled = Compiled(model)
        loss = compiled.loss_and_gradient(tokens, tokens[:, 3]).detach()
        gradients = {n: w.grad.clone() for n, w in model.named_parameters() if w.grad is not None}
        return {"logits": compiled.logits(tokens), "loss": loss, **gradients}

    assert_same_over_patterns(results)
    assert_same_over_patterns(asked_elsewhere)


def test_memory_is_really_filled():
    """The check itself: a tensor that nobody writes differs from pattern to pattern."""
    x = torch.ones(3)
    with pytest.raises(AssertionError, match="memory filled with"):
        assert_same_over_patterns(lambda: {"x": x.new_empty(3)})
