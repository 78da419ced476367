"""The contenders of the benchmarks compute what ours computes, and without our kernels."""

import multiprocessing
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from unittest import mock

import numpy as np
import pytest
import torch

from benchmarks import block, operations, ours, step
from benchmarks.measuring import (
    Unavailable,
    difference,
)
from benchmarks.options import Options
from benchmarks.report import Report
from benchmarks.rows import OURS
from benchmarks.torch_mixers import eager
from recall_arena.evaluation import held_out
from recall_arena.kernels import native
from recall_arena.model import SequenceModel, named
from recall_arena.tasks import AssociativeRecall
from recall_arena.training import Schedule

pytestmark = pytest.mark.whole

TASK = AssociativeRecall(queries=4)

MAKERS = (operations.scan, operations.conv, operations.attention, operations.delta)

needs_jax = pytest.mark.skipif(find_spec("jax") is None, reason="JAX is not installed")


# JAX, in a process of its own: once it has computed, its process must not be forked


@pytest.fixture(scope="module")
def child() -> Iterator[ProcessPoolExecutor]:
    """A fresh process; it compiles fast rather than fast code."""
    flags = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    with (
        mock.patch.dict(os.environ, {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}),
        ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool,
    ):
        yield pool


def error_in_training(name: str, unroll: int) -> float:
    """How far JAX's loss and gradients are from ours."""
    from benchmarks import jax_contenders, jax_training

    torch.manual_seed(0)
    spec = named(name, vocabulary=16, width=8, longest_context=27)
    model, batch = SequenceModel(spec), TASK.sample(3, 9, torch.Generator().manual_seed(0))
    converted = jax_training.converted(spec, model, unroll)
    actual = jax_contenders.loss_and_gradients(*converted, batch)
    return difference(actual, ours.loss_and_gradients(model, batch))


COMPILED_ELSEWHERE = {"transformer-nope", "mamba", "hybrid-a"}  # hybrid-b has both of their layers
IN_JAX = [
    pytest.param(name, marks=pytest.mark.slow if name in COMPILED_ELSEWHERE else ())
    for name in step.SUBJECTS[:-1]  # all but the gated delta rule
]


@needs_jax
@pytest.mark.parametrize("name", IN_JAX)
def test_every_model_in_jax_equals_ours_in_loss_and_gradients(child, name):
    assert child.submit(error_in_training, name, 1).result() <= 1e-5


def loss_of_an_unknown_mixer() -> None:
    """JAX's model of layers that it does not know."""
    from benchmarks import jax_training

    spec = named("mamba", vocabulary=16, width=8)
    converted, weights = jax_training.converted(spec, SequenceModel(spec), 1)
    object.__setattr__(spec, "layers", ("mamba", "abacus"))
    converted.logits(weights, np.zeros((1, 3), int))


@needs_jax
def test_jax_takes_no_unknown_mixer_for_another(child):
    with pytest.raises(ValueError, match="no mixer 'abacus'"):
        child.submit(loss_of_an_unknown_mixer).result()


def errors_in_operations() -> dict[str, float]:
    """How far JAX's operations are from ours, in output and gradients."""
    found = {}
    with mock.patch("benchmarks.jax_contenders.UNROLLS", (2,)):
        for make in MAKERS:
            operation = make(2, 7, 8)
            made = operations.builders(operation, Options(), Report())
            found[operation.name] = difference(made["JAX"]().results(), made[OURS]().results())
    return found


@needs_jax
def test_every_operation_in_jax_equals_ours(child):
    errors = child.submit(errors_in_operations).result()
    assert errors.keys() == {"selective_scan", "causal_conv", "causal_attention", "gated_delta"}
    assert all(error <= 1e-5 for error in errors.values()), errors


def weights_after_steps() -> tuple[list[float], list[float]]:
    """One weight vector after five steps of JAX's AdamW behind its clipping, and of PyTorch's."""
    import jax.numpy as jnp

    from benchmarks import jax_training

    gradients = torch.randn(5, 6, generator=torch.Generator().manual_seed(0)) * 10 ** torch.arange(
        -3.0, 3.0
    )
    weight = torch.nn.Parameter(torch.linspace(-1, 1, 6))
    optimizer = torch.optim.AdamW([weight], lr=0.1, weight_decay=0.0)
    state = jax_training.first_state({"w": jnp.array(weight.detach().numpy())})
    for gradient in gradients:
        weight.grad = gradient.clone()
        torch.nn.utils.clip_grad_norm_([weight], 1.0)
        optimizer.step()
        clipped = jax_training.clipped({"w": jnp.array(gradient.numpy())}, 1.0)
        state = jax_training.adamw(state, clipped, 0.1)
    return state.weights["w"].tolist(), weight.tolist()


@needs_jax
def test_clipping_and_adamw_in_jax_equal_torchs(child):
    actual, expected = child.submit(weights_after_steps).result()
    assert actual == pytest.approx(expected, rel=1e-5, abs=1e-5)


def sampled() -> tuple[np.ndarray, np.ndarray]:
    """A batch that JAX drew."""
    import jax

    from benchmarks import jax_training

    tokens, answers = jax_training.sample(TASK, 512, 9, jax.random.key(0))
    return np.asarray(tokens), np.asarray(answers)


@needs_jax
def test_sequences_drawn_in_jax_are_the_tasks(child):
    tokens, answers = child.submit(sampled).result()
    body, query = tokens[:, :-1], tokens[:, -1:]
    first = (body == query).argmax(axis=1)

    assert tokens.shape == (512, 10)
    assert set(query.ravel()) == set(range(TASK.queries))
    assert set(answers) == set(body.ravel()) == set(range(TASK.vocabulary))
    assert set(first) == set(range(9 - TASK.delay))
    np.testing.assert_array_equal(body[np.arange(512), first + TASK.delay], answers)


def test_without_jax_its_contender_is_unavailable_and_says_why(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", None)
    made = operations.builders(operations.conv(2, 7, 8), Options(), Report())
    with pytest.raises(Unavailable, match="jax is not installed"):
        made["JAX"]()


# The other contenders


@pytest.mark.parametrize("name", step.SUBJECTS)
def test_every_eager_model_equals_ours_in_loss_and_gradients(name):
    schedule = Schedule(0.01, steps=10, context=9, batch=3)
    spec = named(name, vocabulary=16, width=8, longest_context=27)
    made = step.builders(spec, schedule, {}, Report())
    made.pop("JAX", None)
    expected = made[OURS]().results()
    assert len(made) >= 2
    for name, build in made.items():
        assert difference(build().results(), expected) <= 1e-5, name


@pytest.mark.parametrize("name", step.SUBJECTS)
def test_no_contender_uses_our_kernels(name, monkeypatch):
    def refuse(*_):
        raise AssertionError("a compiled kernel was called")

    monkeypatch.setattr(native, "call", refuse)
    spec = named(name, vocabulary=16, width=8, longest_context=27)
    made = step.builders(spec, Schedule(0.01, steps=10, context=9, batch=3), {}, Report())
    for name in made.keys() - {OURS, "JAX"}:
        made[name]().results()


def test_no_contender_takes_an_unknown_mixer_for_another():
    with pytest.raises(ValueError, match="no mixer 'abacus'"):
        eager()("abacus", 8)


@pytest.mark.parametrize(
    "part", ["mamba", "mamba(window=1)", "attention", "attention-rope", block.CAT, "gated-delta"]
)
def test_the_blocks_agree(part):
    x, arriving = torch.randn(2, 2, 7, 8, generator=torch.Generator().manual_seed(0))
    x.requires_grad_()
    match part:
        case "mamba":
            made = block.mamba_builders(x, arriving, Options(), Report())
        case "mamba(window=1)":
            made = block.without_convolution(x, arriving, Report())
        case "gated-delta":
            made = block.gated_delta_builders(x, arriving)
        case _:
            made = block.attention_builders(x, arriving, part)
    made.pop("JAX", None)
    expected = made[OURS]().results()
    for name, build in made.items():
        assert difference(build().results(), expected) <= 1e-5, name


@pytest.mark.parametrize("make", MAKERS)
def test_the_operations_agree(make):
    made = operations.builders(make(2, 7, 8), Options(compile_limit=0), Report())
    del made["JAX"]
    expected = made[OURS]().results()
    assert len(made) >= 2
    for name, build in made.items():
        assert difference(build().results(), expected) <= 1e-5, name


@pytest.mark.parametrize(("sequences", "context"), [(1000, 192), (1000, 2), (7, 64), (83, 4000)])
def test_evaluation_works_in_equal_chunks_that_leave_no_sequence_out(sequences, context):
    batch = held_out(AssociativeRecall(), context, sequences, "benchmark")
    batch.tokens[:, 0] = torch.arange(sequences)
    chunks = ours.chunks(batch)

    assert len({chunk.tokens.shape for chunk in chunks}) == 1
    assert {int(first) for chunk in chunks for first in chunk.tokens[:, 0]} == set(range(sequences))
    assert sum(len(chunk.answers) for chunk in chunks) < sequences + len(chunks)
