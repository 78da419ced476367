"""Where the benchmarks meet this package's models: all calls whose form its interface decides.

A model here is ours, or another `nn.Module` from tokens (batch, length) to logits (batch, K).
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.measuring import Results
from recall_arena.evaluation import TOKENS_AT_ONCE, accuracy
from recall_arena.mixers import MIXERS
from recall_arena.model import ModelSpec, SequenceModel
from recall_arena.tasks import AssociativeRecall, Batch
from recall_arena.training import Schedule, train


def fresh(spec: ModelSpec) -> SequenceModel:
    """Our model before its first step, always with the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SequenceModel(spec)


def fresh_mixer(name: str, width: int) -> nn.Module:
    """One of our mixers, always with the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MIXERS[name](width)


@torch.inference_mode()
def logits(model: nn.Module, tokens: Tensor) -> Tensor:
    """The logits after the last token, no gradient."""
    return model(tokens)


def steps(model: nn.Module, task: AssociativeRecall, schedule: Schedule) -> Iterator[float]:
    """One training step, and its loss, for each item asked for."""
    return train(model, task, schedule, seed=0)


def loss_and_gradients(model: nn.Module, batch: Batch) -> Results:
    """The loss, as "output", and the gradient of every trained weight, as a step gets them."""
    wanted = {name: p for name, p in model.named_parameters() if p.requires_grad}
    loss = None
    if isinstance(model, SequenceModel):
        compiled = model.loss_with_gradient(batch.tokens)
        loss = None if compiled is None else compiled(batch.tokens, batch.answers)
    if loss is None:
        loss = F.cross_entropy(model(batch.tokens), batch.answers)
        loss.backward()
    gradients = {name: p.grad.clone() for name, p in wanted.items() if p.grad is not None}
    for weight in wanted.values():
        weight.grad = None
    return arrays({"output": loss, **gradients})


def correct(model: nn.Module, batch: Batch) -> int:
    """How many answers are right, as in evaluation."""
    return accuracy(model, batch).correct


def chunks(batch: Batch) -> list[Batch]:
    """Chunks of one size, as small as evaluation's, so that JAX compiles each length once.

    Where they do not come out even, the last sequences are counted twice, fewer than a chunk's.
    """
    sequences, length = batch.tokens.shape
    number = -(-sequences * length // TOKENS_AT_ONCE)
    size = -(-sequences // number)
    starts = [min(start, sequences - size) for start in range(0, sequences, size)]
    return [
        Batch(batch.tokens[start : start + size], batch.answers[start : start + size])
        for start in starts
    ]


def arrays(tensors: dict[str, Tensor]) -> Results:
    """The numbers, for comparison."""
    return {name: t.detach().numpy() for name, t in tensors.items()}
