"""Answers may be asked for anywhere: model, compiled form and counts agree with the definition."""

import functools
import math
import subprocess
import sys
from pathlib import Path

import jaxtyping
import pytest
import torch
from kernel_checks import assert_identical, assert_near, needs_kernels
from test_stack import REACH, each_model, made
from torch import Tensor
from torch.nn import functional as F

from recall_arena import compiled as compiled_form
from recall_arena.compiled import Compiled, logits_by_pieces
from recall_arena.evaluation import Counts, accuracy
from recall_arena.model import ModelSpec, SequenceModel
from recall_arena.seeds import generator
from recall_arena.tasks import Batch

TOLERANCE = 2e-4  # of the largest number; gradients through normalised outputs round the most


@pytest.mark.parametrize("wrong", ["inputs", "targets", "where"])
def test_a_batch_of_other_numbers_than_tokens_is_refused(wrong, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as outside of tests
    given = {name: torch.zeros(2, 3, dtype=torch.int64) for name in ("inputs", "targets", "where")}
    with pytest.raises(ValueError, match=f"{wrong} must be int64, tokens and .* got torch.float32"):
        Batch(**given | {wrong: torch.zeros(2, 3)})


SHAPES = [  # batch, length, width, vocabulary, asked
    (2, 1, 8, 16, 1),
    (3, 9, 8, 16, 1),
    (5, 17, 8, 16, 4),
    (37, 33, 8, 3, 2),
    (70, 9, 8, 5, 12),  # more than there are positions, so that some are asked twice
    (17, 65, 20, 16, 5),
    (3, 16, 12, 1000, 4),
]


def asked(batch: int, length: int, vocabulary: int, count: int) -> Batch:
    rng = generator("asked", batch, length, count)

    def draw(below: int, columns: int) -> Tensor:
        return torch.randint(below, (batch, columns), generator=rng)

    return Batch(draw(vocabulary, length), draw(vocabulary, count), draw(length, count))


def by_definition(model: SequenceModel, batch: Batch) -> dict[str, Tensor]:
    """Logits, loss and gradients, each answer from its prefix alone, as the last position's."""
    wanted = {name: p for name, p in model.named_parameters() if p.requires_grad}
    rows = [
        torch.stack([model(tokens[None, : position + 1])[0] for position in where])
        for tokens, where in zip(batch.inputs, batch.where.tolist(), strict=True)
    ]
    logits = torch.stack(rows)
    loss = F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten())
    gradients = torch.autograd.grad(loss, list(wanted.values()))
    named = dict(zip(wanted, gradients, strict=True))
    return {"logits": logits.detach(), "loss": loss.detach(), **named}


def by_model(model: SequenceModel, batch: Batch) -> dict[str, Tensor]:
    wanted = {name: p for name, p in model.named_parameters() if p.requires_grad}
    logits = model(batch.inputs, batch.where)
    loss = F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten())
    gradients = torch.autograd.grad(loss, list(wanted.values()))
    named = dict(zip(wanted, gradients, strict=True))
    return {"logits": logits.detach(), "loss": loss.detach(), **named}


def by_stack(model: SequenceModel, batch: Batch) -> dict[str, Tensor]:
    """By the kernel for whole models; what stood in `grad` before must not count."""
    wanted = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for weight in wanted.values():
        weight.grad = torch.full_like(weight, 7.0)
    plan = Compiled(model)._current(batch.inputs.shape[1])
    assert plan is not None
    loss = plan.loss(batch.inputs, batch.targets, batch.where)
    logits = plan.logits(batch.inputs, batch.where)
    assert loss is not None
    assert logits is not None
    return {"logits": logits, "loss": loss, **{n: w.grad.clone() for n, w in wanted.items()}}


@each_model
def test_the_model_answers_at_a_position_what_it_answers_to_the_tokens_up_to_it(name):
    model, batch = made(name).double(), asked(2, 6, 16, 3)
    assert_near(by_model(model, batch), by_definition(model, batch), 1e-12)


@functools.cache  # computed once for all instruction sets
def exact(name: str, shape: tuple[int, ...]) -> dict[str, Tensor]:
    batch, length, width, vocabulary, count = shape
    model = made(name, width, vocabulary).double()
    return by_model(model, asked(batch, length, vocabulary, count))


@pytest.mark.one_in(6)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@each_model
@pytest.mark.usefixtures("instruction_set")
def test_compiled_logits_loss_and_gradients_are_those_of_the_model(name, shape):
    batch, length, width, vocabulary, count = shape
    model, data = made(name, width, vocabulary), asked(batch, length, vocabulary, count)
    assert_near(by_stack(model, data), exact(name, shape), TOLERANCE)


@pytest.mark.one_in(2)
@each_model
@pytest.mark.usefixtures("instruction_set")
def test_the_last_position_asked_by_its_number_is_the_last_position(name):
    model, data = made(name), asked(5, 17, 16, 1)
    data = Batch.asked_last(data.inputs, data.targets[:, 0])
    compiled = Compiled(model)
    compiled.loss_and_gradient(data.tokens, data.answers)
    alone = {n: w.grad.clone() for n, w in model.named_parameters() if w.grad is not None}
    alone["logits"] = compiled.logits(data.tokens)[:, None]
    numbered = by_stack(model, data)
    assert_near({n: numbered[n] for n in alone}, alone, TOLERANCE)


@pytest.mark.one_in(2)
@each_model
@pytest.mark.usefixtures("instruction_set", "shared_out")
def test_repeats_and_threads_change_no_bit(name):
    model, batch = made(name, 16), asked(37, 33, 16, 3)
    torch.set_num_threads(1)
    first = by_stack(model, batch)
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        assert_identical(by_stack(model, batch), first)


@needs_kernels
def test_one_loss_serves_batches_that_ask_at_other_positions_and_other_numbers_of_them():
    model = made("hybrid-b")
    loss = Compiled(model).loss_and_gradient
    last = Batch.asked_last(*(asked(5, 9, 16, 1).inputs, torch.arange(5)))
    for batch in (asked(5, 9, 16, 2), asked(5, 9, 16, 3), last, asked(5, 9, 16, 2)):
        expected = by_model(model, batch)["loss"]
        torch.testing.assert_close(loss(batch.inputs, batch.targets, batch.where), expected)


def test_a_model_that_is_not_compiled_answers_everywhere_too():
    model, batch = made("hybrid-a"), asked(4, 9, 16, 3)
    model.norm_f.register_forward_hook(lambda *_: None)
    compiled, expected = Compiled(model), by_model(model, batch)
    logits = compiled.logits(batch.inputs, batch.where)
    torch.testing.assert_close(logits, expected["logits"])
    loss = compiled.loss_and_gradient(batch.inputs, batch.targets, batch.where)
    torch.testing.assert_close(loss, expected["loss"])


@pytest.mark.parametrize("piece", [1, 2, 4, 5, 64])
@pytest.mark.parametrize("layers", [("mamba", "mamba"), ("gated-delta", "mamba")])
def test_long_sequences_are_answered_wherever_it_is_asked(layers, piece):
    torch.manual_seed(0)
    model, batch = SequenceModel(ModelSpec(layers)).double(), asked(3, 17, 16, 6)
    found = logits_by_pieces(model, batch.inputs, piece, batch.where)
    expected = model(batch.inputs, batch.where).detach()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("wrong", [-1, 9, 2**40])
@pytest.mark.parametrize("pieces", [False, True])
def test_a_position_that_is_not_in_the_sequence_is_refused(monkeypatch, pieces, wrong):
    monkeypatch.setattr(compiled_form, "AT_ONCE", 4 if pieces else 1 << 13)
    model, batch = made("mamba"), asked(4, 9, 16, 3)
    batch.where[2, 1] = wrong
    with pytest.raises((IndexError, RuntimeError), match=r"out of (range|bounds)"):
        Compiled(model).logits(batch.inputs, batch.where)
    with pytest.raises((IndexError, RuntimeError), match=r"out of (range|bounds)"):
        Compiled(model).loss_and_gradient(batch.inputs, batch.targets, batch.where)


def test_learned_positions_that_do_not_reach_are_refused():
    batch = asked(2, REACH + 2, 16, 2)
    with pytest.raises(ValueError, match=f"reach {REACH + 1} tokens"):
        Compiled(made("transformer-learned")).logits(batch.inputs, batch.where)


# Batches and counts


def test_a_batch_with_one_answer_at_the_end_shows_it_as_tokens_and_answers():
    batch = Batch.asked_last(torch.arange(6).view(2, 3), torch.tensor([7, 8]))
    assert batch.asks_last
    assert batch.where.tolist() == [[2], [2]]
    assert batch.tokens.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert batch.answers.tolist() == [7, 8]


@pytest.mark.parametrize("where", [[[2, 2], [2, 2]], [[2], [1]], [[0], [0]]])
def test_a_batch_that_asks_elsewhere_has_no_answer_at_the_end(where):
    where = torch.tensor(where)
    batch = Batch(torch.arange(6).view(2, 3), torch.zeros_like(where), where)
    assert not batch.asks_last
    with pytest.raises(ValueError, match="targets"):
        _ = batch.answers


def test_a_split_batch_is_the_batch_in_pieces():
    batch = asked(7, 5, 16, 2)
    pieces = batch.split(3)
    assert [len(piece.inputs) for piece in pieces] == [3, 3, 1]
    for name in ("inputs", "targets", "where"):
        joined = torch.cat([getattr(piece, name) for piece in pieces])
        assert torch.equal(joined, getattr(batch, name))


def test_every_answer_counts_and_none_of_them_by_query():
    """The solver says at every position what stands there."""
    tokens = torch.tensor([[3, 1, 2, 0], [1, 1, 0, 2]])
    where, targets = torch.tensor([[0, 2, 3], [1, 2, 2]]), torch.tensor([[3, 9, 0], [1, 1, 0]])

    def echo(tokens: Tensor, where: Tensor) -> Tensor:
        return F.one_hot(tokens.gather(1, where), 16).float()

    counts = accuracy(echo, Batch(tokens, targets, where))
    assert counts == Counts(6, 4, [], [], 4, 4)
    assert math.isclose(counts.accuracy, 4 / 6)


READ_OUT = """
import re, sys
from pathlib import Path
import torch
from recall_arena.compiled import Compiled
from recall_arena.model import ModelSpec, SequenceModel

torch.set_num_threads(1)
spec = ModelSpec(("mamba", "attention"), vocabulary=8192, width=8)
model = Compiled(SequenceModel(spec))

def peak():
    (kib,) = re.findall(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
    return int(kib) * 1024 / 1e6

def work(length, asked):
    tokens = torch.randint(8192, (8, length))
    where = torch.arange(length)[-asked:].expand(8, asked).contiguous()
    model.loss_and_gradient(tokens, torch.randint(8192, (8, asked)), where)
    model.logits(tokens, where)

work(512, 1)
before = peak()
work(512, int(sys.argv[1]))
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells a process's peak")
@pytest.mark.parametrize(("asked", "low", "high"), [(8, 0, 20), (512, 60, 1000)])
def test_of_a_large_vocabulary_only_the_positions_asked_are_read_out(asked, low, high):
    """All logits of 8 sequences of 512 are 134 MB, most of which the second case must see."""
    done = subprocess.run(
        [sys.executable, "-c", READ_OUT, str(asked)], capture_output=True, text=True, check=True
    )
    assert low <= float(done.stdout) < high
