"""The whole training step in JAX, inside one jit: data, loss, gradient, clipping, AdamW.

What `recall_arena.training.Training` does, step for step; only the random numbers differ.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from benchmarks.jax_models import JaxModel, Weights
from recall_arena.model import ModelSpec, SequenceModel
from recall_arena.tasks import AssociativeRecall
from recall_arena.training import Schedule


class State(NamedTuple):
    """What a step changes: the weights, AdamW's two averages, and the steps taken."""

    weights: Weights
    mean: Weights
    square: Weights
    steps: Array


def converted(spec: ModelSpec, model: SequenceModel, unroll: int) -> tuple[JaxModel, Weights]:
    """Our model as JAX's, with the same numbers."""
    arrays = {name: jnp.array(t.detach().numpy()) for name, t in model.state_dict().items()}
    embedding = arrays.pop("embedding.weight")
    return JaxModel(spec, embedding, unroll), arrays


def sample(task: AssociativeRecall, batch: int, context: int, key: Array) -> tuple[Array, Array]:
    """Tokens (batch, context + 1) and answers (batch,), drawn as the task does."""
    keys = jax.random.split(key, 4)
    query = jax.random.randint(keys[0], (batch, 1), 0, task.queries)
    value = jax.random.randint(keys[1], (batch, 1), 0, task.vocabulary)
    first = jax.random.randint(keys[2], (batch, 1), 0, context - task.delay)
    filler = jax.random.randint(keys[3], (batch, context), 0, task.vocabulary - 1)
    body = filler + (filler >= query)
    positions = jnp.arange(context)
    body = jnp.where(positions == first, query, body)
    body = jnp.where(positions == first + task.delay, value, body)
    return jnp.concatenate([body, query], axis=1), value[:, 0]


def clipped(gradients: Weights, largest: float) -> Weights:
    """As `torch.nn.utils.clip_grad_norm_`."""
    norm = jnp.sqrt(sum((g**2).sum() for g in gradients.values()))
    scale = jnp.minimum(1.0, largest / (norm + 1e-6))
    return {name: scale * g for name, g in gradients.items()}


def adamw(state: State, gradients: Weights, rate: Array | float) -> State:
    """As `torch.optim.AdamW` without weight decay, at its default constants."""
    steps = state.steps + 1
    unbias_mean, unbias_square = 1 - 0.9**steps, 1 - 0.999**steps
    mean = {name: 0.9 * state.mean[name] + 0.1 * g for name, g in gradients.items()}
    square = {name: 0.999 * state.square[name] + 0.001 * g**2 for name, g in gradients.items()}

    def changed(name: str, weight: Array) -> Array:
        size = jnp.sqrt(square[name] / unbias_square) + 1e-8
        return weight - rate * (mean[name] / unbias_mean) / size

    weights = {name: changed(name, weight) for name, weight in state.weights.items()}
    return State(weights, mean, square, steps)


def first_state(weights: Weights) -> State:
    """Before the first step; copies, for a step may write over what it is given."""
    mean = {name: jnp.zeros_like(w) for name, w in weights.items()}
    square = {name: jnp.zeros_like(w) for name, w in weights.items()}
    mine = {name: jnp.array(w, copy=True) for name, w in weights.items()}
    return State(mine, mean, square, jnp.zeros((), jnp.int32))


def training_step(
    model: JaxModel, task: AssociativeRecall, schedule: Schedule, seed: int, state: State
) -> tuple[State, Array]:
    """The state after one more step, and the loss."""
    key = jax.random.fold_in(jax.random.key(seed), state.steps)
    tokens, answers = sample(task, schedule.batch, schedule.context, key)
    loss, gradients = jax.value_and_grad(model.loss)(state.weights, tokens, answers)
    gradients = clipped(gradients, schedule.clip)
    return adamw(state, gradients, rate_at(schedule, state.steps)), loss


def rate_at(schedule: Schedule, step: Array) -> Array:
    """As `Schedule.rate_at`."""
    falling = max(schedule.falling, 1)
    rise = (step + 1) / max(schedule.warmup, 1)
    fall = (schedule.steps - step) / falling
    return schedule.rate * jnp.minimum(jnp.minimum(rise, 1.0), fall)
