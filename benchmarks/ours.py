"""Where the benchmarks meet this package's models: all calls whose form its interface decides.

A model here is ours, or another `nn.Module` from tokens (batch, length) to logits (batch, K), of
which `Compiled` calls the `forward`.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from benchmarks.measuring import Results
from recall_arena.compiled import Compiled
from recall_arena.evaluation import TOKENS_AT_ONCE, accuracy
from recall_arena.mixers.text import read_mixer
from recall_arena.model import ModelSpec, SequenceModel
from recall_arena.tasks import AssociativeRecall, Batch
from recall_arena.training import Schedule, Training


def fresh(spec: ModelSpec) -> SequenceModel:
    """Our model before its first step, always with the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SequenceModel(spec)


def fresh_mixer(name: str, width: int) -> nn.Module:
    """One of our mixers by its text, always with the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return read_mixer(name).build(width)


def logits(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """The function from tokens to the logits after the last one, no gradient."""
    return Compiled(model).logits


def steps(model: nn.Module, task: AssociativeRecall, schedule: Schedule) -> Iterator[float]:
    """One training step, and its loss, for each item asked for."""
    return Training(model.parameters(), Compiled(model).loss_and_gradient, task, schedule, seed=0)


def loss_and_gradients(model: nn.Module, batch: Batch) -> Results:
    """The loss, as "output", and the gradient of every trained weight, as a step gets them."""
    loss = Compiled(model).loss_and_gradient(batch.tokens, batch.answers)
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    told = arrays({"output": loss, **gradients})
    model.zero_grad(set_to_none=True)
    return told


def correct(function: Callable[[Tensor], Tensor], batch: Batch) -> int:
    """How many answers the logits give right, as in evaluation."""
    return accuracy(function, batch).correct


def chunks(batch: Batch) -> list[Batch]:
    """Chunks of one size, as small as evaluation's, so that JAX compiles each length once.

    Where they do not come out even, the last sequences are counted twice, fewer than a chunk's.
    """
    sequences, length = batch.tokens.shape
    number = -(-sequences * length // TOKENS_AT_ONCE)
    size = -(-sequences // number)
    starts = [min(start, sequences - size) for start in range(0, sequences, size)]
    return [
        Batch.asked_last(batch.tokens[start : start + size], batch.answers[start : start + size])
        for start in starts
    ]


def arrays(tensors: dict[str, Tensor]) -> Results:
    """The numbers, for comparison."""
    return {name: t.detach().numpy() for name, t in tensors.items()}
