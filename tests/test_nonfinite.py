"""NaN and infinity stay where they are: in their sequence, and in causal operations in its future.

Within a sequence they reach no more than in the definition.  That multiplies values of the future
by a weight of zero, which lets a NaN into the past; the kernels do not.
"""

import math

import pytest
import torch
from kernel_checks import Inputs, assert_identical, assert_near, in_float64, needs_kernels
from operations import BATCH, OPERATIONS, Operation
from torch import Tensor

from recall_arena.compiled import Compiled
from recall_arena.kernels import (
    causal_attention,
    causal_attention_definition,
    selective_scan,
    selective_scan_definition,
)
from recall_arena.model import SequenceModel, named
from recall_arena.seeds import generator
from recall_arena.zoo import ZOO

LENGTH = 19  # more than two chunks of the scan, and than a vector of queries

pytestmark = [needs_kernels, pytest.mark.usefixtures("instruction_set", "shared_out")]

every_operation = pytest.mark.parametrize("name", OPERATIONS)
every_kind = pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])


each_thread_count = pytest.mark.parametrize("threads", [1, 2])


def results(function, inputs: Inputs, arriving: Tensor | None = None) -> dict[str, Tensor]:
    """The output and all gradients, from a gradient that arrives at the output."""
    leaves = {n: None if x is None else x.clone().requires_grad_() for n, x in inputs.items()}
    out = function(**leaves)
    given = arriving_at(out) if arriving is None else arriving
    out.backward(given)
    gradients = {n: x.grad for n, x in leaves.items() if x is not None and x.grad is not None}
    return {"out": out.detach(), **gradients}


def arriving_at(out: Tensor) -> Tensor:
    return torch.randn(out.shape, generator=generator("arriving"))


def poisoned(inputs: Inputs, name: str, sequence: int, position: int, axis: int, bad: float):
    x = inputs[name].clone()
    x[sequence].select(axis - 1, position)[..., 1] = bad
    return inputs | {name: x}


def others(found: dict[str, Tensor], operation: Operation, sequence: int) -> dict[str, Tensor]:
    """What belongs to the other sequences."""
    rest = [i for i in range(BATCH) if i != sequence]
    return {name: x[rest] for name, x in found.items() if name in ("out", *operation.batched)}


@pytest.mark.one_in(6)
@each_thread_count
@every_operation
@every_kind
def test_a_bad_number_changes_no_other_sequence(name, bad, threads):
    torch.set_num_threads(threads)
    operation = OPERATIONS[name]
    inputs = operation.inputs(LENGTH)
    clean = results(operation.compiled, inputs)
    for sequence, position in ((0, 0), (2, 7), (BATCH - 1, LENGTH - 1)):
        for victim in operation.batched:
            bad_inputs = poisoned(inputs, victim, sequence, position, operation.axis, bad)
            found = results(operation.compiled, bad_inputs)
            assert_identical(others(found, operation, sequence), others(clean, operation, sequence))


@pytest.mark.one_in(2)
@each_thread_count
@every_operation
def test_a_bad_gradient_changes_no_other_sequence(name, threads):
    torch.set_num_threads(threads)
    operation = OPERATIONS[name]
    inputs = operation.inputs(LENGTH)
    clean = results(operation.compiled, inputs)
    for sequence in (0, 2, BATCH - 1):
        arriving = arriving_at(clean["out"])
        arriving[sequence, ..., 0] = math.nan
        found = results(operation.compiled, inputs, arriving)
        assert_identical(others(found, operation, sequence), others(clean, operation, sequence))


@pytest.mark.one_in(4)
@every_operation
@every_kind
def test_a_bad_number_goes_no_further_than_in_the_definition(name, bad):
    """Forward it goes exactly as far; of its own sequence's gradients it may spare some."""
    operation = OPERATIONS[name]
    inputs = operation.inputs(LENGTH)
    clean = results(operation.compiled, inputs)
    for position in (0, 8, LENGTH - 1):
        for victim in operation.batched:
            given = poisoned(inputs, victim, 2, position, operation.axis, bad)
            found = results(operation.compiled, given)
            meant = results(operation.definition, given)
            if not operation.last:
                past = [x["out"].narrow(operation.axis, 0, position) for x in (found, clean)]
                assert torch.equal(*past), victim
                meant["out"].narrow(operation.axis, 0, position).fill_(0)
            assert torch.equal(found["out"].isfinite(), meant["out"].isfinite()), victim
            for each, x in found.items():
                assert (x.isfinite() | ~meant[each].isfinite()).all(), (victim, each)


@pytest.mark.parametrize("width", [2, 8, 17])
def test_a_query_sees_no_later_key_however_low_its_scores(width):
    q = torch.full((1, 1, LENGTH, width), 1e16)
    k = -1e16 * (1 + torch.rand(1, 1, LENGTH, width, generator=generator("low")))
    v = torch.randn(1, 1, LENGTH, width, generator=generator("low values"))
    inputs = {"q": q, "k": k, "v": v}
    meant = causal_attention_definition(**in_float64(inputs))
    assert_near({"out": causal_attention(**inputs)}, {"out": meant})


def test_a_growing_state_overflows_where_it_does_in_the_definition():
    inputs = OPERATIONS["ungated scan"].inputs(40) | {"A": torch.linspace(-4, 4, 160).view(10, 16)}
    inputs["delta"] = inputs["delta"] * 40
    found = results(selective_scan, inputs)
    meant = results(selective_scan_definition, in_float64(inputs), arriving_at(found["out"]))
    overflow = results(selective_scan_definition, inputs)
    assert torch.equal(found["out"].isfinite(), overflow["out"].isfinite())
    both = found["out"].isfinite()
    assert 0 < both.sum() < both.numel()
    assert_near({"out": found["out"][both]}, {"out": meant["out"][both]}, 1e-3)


@pytest.mark.one_in(2)
@each_thread_count
@pytest.mark.parametrize("batch", [3, 64])  # in the larger batch each token is projected once
@pytest.mark.parametrize("model", ZOO)
def test_a_bad_token_changes_no_other_sequence_of_a_model(model, batch, threads):
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model, bad = SequenceModel(named(model, width=8, vocabulary=5)), 4
    tokens = torch.randint(bad, (batch, LENGTH), generator=generator("tokens"))
    with torch.no_grad():
        clean = Compiled(model).logits(tokens)
        model.embedding.weight[bad] = math.nan
        tokens[1, 7] = bad
        found = Compiled(model).logits(tokens)
    rest = [i for i in range(batch) if i != 1]
    assert torch.equal(found[rest], clean[rest])
    assert found[1].isnan().all()


@pytest.mark.parametrize("model", ZOO)
def test_a_bad_token_makes_the_loss_and_every_gradient_bad(model):
    torch.manual_seed(0)
    model = SequenceModel(named(model, width=8, vocabulary=5))
    tokens = torch.randint(4, (64, LENGTH), generator=generator("tokens"))
    tokens[1, LENGTH - 1] = 4
    with torch.no_grad():
        model.embedding.weight[4] = math.nan
    assert Compiled(model).loss_and_gradient(tokens, tokens[:, 0]).isnan()
    for name, weight in model.named_parameters():
        if weight.requires_grad and name != "positions.weight":
            assert weight.grad.isnan().any(), name
