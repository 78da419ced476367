"""JAX as a contender: compiled before it is timed, and its best number of unrolled positions.

Imported only where JAX is installed.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
import torch
from jax import Array
from torch import nn

from benchmarks import jax_training
from benchmarks.jax_models import JaxModel, Weights
from benchmarks.measuring import Contender, Results, Stage, seconds_a_turn
from benchmarks.report import Report
from recall_arena.tasks import AssociativeRecall, Batch
from recall_arena.training import Schedule

UNROLLS = (1, 4, 8, 16)

Function = Callable[..., Array]


def compiled(function: Callable[..., Any], *arguments: Any, donate: tuple[int, ...] = ()) -> Any:
    """The function compiled for these arguments, and the seconds that took."""
    start = time.perf_counter()
    executable = jax.jit(function, donate_argnums=donate).lower(*arguments).compile()
    return executable, time.perf_counter() - start


def ready(arrays: Any) -> Any:
    """The arrays, once they are computed."""
    return jax.block_until_ready(arrays)  # type: ignore[no-untyped-call]


def array(tensor: torch.Tensor) -> Array:
    """The tensor's numbers, copied."""
    return jax.numpy.array(tensor.detach().numpy())


def best_unroll(build: Callable[[int], Contender], report: Report) -> tuple[Contender, int]:
    """The quickest of the contenders that `build` makes for each of UNROLLS."""
    candidates = [build(unroll) for unroll in UNROLLS]
    seconds = seconds_a_turn(candidates)
    for each, taken in zip(candidates, seconds, strict=True):
        compiling = each.figures["compile s"]
        report.say(f"  tried {each.name}: {1e3 * taken:.3g} ms, compiled in {compiling:.1f} s")
    quickest = seconds.index(min(seconds))
    return candidates[quickest], UNROLLS[quickest]


def together(
    name: str, function: Function, inputs: dict[str, torch.Tensor], arriving: torch.Tensor
) -> Contender:
    """A function's output and all its gradients, in one jit."""
    given = [array(tensor) for tensor in inputs.values()]

    def step(gradient: Array, *given: Array) -> tuple[Array, tuple[Array, ...]]:
        out, pull = jax.vjp(function, *given)
        return out, pull(gradient)

    arguments = (array(arriving), *given)
    run, seconds = compiled(step, *arguments)

    def results() -> Results:
        out, gradients = run(*arguments)
        return numbers(out, dict(zip(inputs, gradients, strict=True)))

    stages: dict[str, Stage] = {"forward and backward": lambda _: ready(run(*arguments))}
    return Contender(name, results, [stages], {"compile s": seconds})


def operation(
    name: str, function: Function, inputs: dict[str, torch.Tensor], arriving: torch.Tensor
) -> Contender:
    """A function without gradients, its two passes compiled apart, and both in one jit."""
    given, gradient = [array(tensor) for tensor in inputs.values()], array(arriving)
    inference, first = compiled(function, *given)
    forward, second = compiled(lambda *x: jax.vjp(function, *x), *given)
    backward, third = compiled(lambda pull, g: pull(g), forward(*given)[1], gradient)
    both = together(name, function, inputs, arriving)
    chains: list[dict[str, Stage]] = [
        {"inference": lambda _: ready(inference(*given))},
        {
            "forward": lambda _: ready(forward(*given)),
            "backward": lambda done: ready(backward(done[1], gradient)),
        },
    ]
    seconds = first + second + third + both.figures["compile s"]
    return Contender(name, both.results, chains + both.chains, {"compile s": seconds})


def block(
    name: str,
    function: Callable[[Weights, Array], Array],
    mixer: nn.Module,
    x: torch.Tensor,
    arriving: torch.Tensor,
) -> Contender:
    """The output and all gradients of a function with the mixer's weights."""
    weights = dict(mixer.named_parameters())

    def of_arrays(x: Array, *arrays: Array) -> Array:
        return function(dict(zip(weights, arrays, strict=True)), x)

    return together(name, of_arrays, {"x": x, **weights}, arriving)


def training(
    name: str,
    model: JaxModel,
    weights: Weights,
    task: AssociativeRecall,
    schedule: Schedule,
    batch: Batch,
) -> Contender:
    """Training steps; checked by the loss and the gradients on `batch`."""
    state = jax_training.first_state(weights)
    step, seconds = compiled(
        partial(jax_training.training_step, model, task, schedule, 0), state, donate=(0,)
    )

    def take(_: object) -> object:
        nonlocal state
        state, loss = step(state)
        return ready((state, loss))

    def results() -> Results:
        return loss_and_gradients(model, weights, batch)

    return Contender(name, results, [{"step": take}], {"compile s": seconds})


def loss_and_gradients(model: JaxModel, weights: Weights, batch: Batch) -> Results:
    """The loss, as "output", and the gradient of every weight."""
    run = jax.jit(jax.value_and_grad(model.loss))
    return numbers(*run(weights, array(batch.tokens), array(batch.answers)))


def evaluation(
    name: str, model: JaxModel, weights: Weights, chunks: list[list[Batch]]
) -> Contender:
    """Right answers at each length; one compilation a length, whose chunks are of one size."""

    def count(weights: Weights, tokens: Array, answers: Array) -> tuple[Array, Array]:
        logits = model.logits(weights, tokens)
        return logits, (logits.argmax(axis=1) == answers).sum()

    given = [[(array(b.tokens), array(b.answers)) for b in batches] for batches in chunks]
    runs, seconds = [], 0.0
    for batches in given:
        run, more = compiled(count, weights, *batches[0])
        runs.append(run)
        seconds += more

    def logits(run: Any, batches: list[tuple[Array, Array]]) -> np.ndarray:
        return np.concatenate([np.asarray(run(weights, *batch)[0]) for batch in batches])

    def results() -> Results:
        return {
            f"logits at length {batches[0][0].shape[1]}": logits(run, batches)
            for run, batches in zip(runs, given, strict=True)
        }

    def count_all(_: object) -> object:
        return [
            sum(map(int, [run(weights, *batch)[1] for batch in batches]))
            for run, batches in zip(runs, given, strict=True)
        ]

    return Contender(name, results, [{"all lengths": count_all}], {"compile s": seconds})


def numbers(out: Array, gradients: Weights) -> Results:
    """The numbers, for comparison."""
    return {name: np.asarray(each) for name, each in {"output": out, **gradients}.items()}
