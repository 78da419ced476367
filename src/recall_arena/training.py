"""The training loop: an iterator of steps that knows no task and no model by name."""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from recall_arena.config import frozen
from recall_arena.seeds import generator
from recall_arena.tasks.task import Task


@frozen
class Schedule:
    """How a model is trained: AdamW without weight decay, fresh sequences at every step.

    Attributes:
        rate: the peak learning rate
        steps: the budget; the rate's schedule is laid out over it
        context: L, the tokens before the query in every training sequence
        batch: sequences a step
        warmup: steps over which the rate rises linearly from zero
        decay: the share of the budget, at its end, over which the rate falls linearly to zero
        clip: the largest norm of the gradient

    Raises:
        ValueError: for a rate, budget, batch or clip that is not positive, a decay outside 0..1
    """

    rate: float
    steps: int
    context: int = 64
    batch: int = 64
    warmup: int = 200
    decay: float = 0.2
    clip: float = 1.0

    def __post_init__(self) -> None:
        for name in ("rate", "steps", "context", "batch", "clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.warmup < 0:
            raise ValueError(f"warmup must not be negative, got {self.warmup}")
        if not 0 <= self.decay <= 1:
            raise ValueError(f"decay must be in 0..1, got {self.decay}")

    def rate_at(self, step: int) -> float:
        """The learning rate of step 0, 1, ..., steps - 1."""
        rise = (step + 1) / max(self.warmup, 1)
        fall = (self.steps - step) / max(self.decay * self.steps, 1)
        return self.rate * min(rise, 1.0, fall)


LossAndGradient = Callable[..., Tensor]
"""(tokens, answers), or (inputs, targets, where) where not just the last token is asked, to the
mean loss; the gradient then stands in each weight's `grad`, written over."""


def train(
    weights: Iterable[nn.Parameter],
    loss_and_gradient: LossAndGradient,
    task: Task,
    schedule: Schedule,
    seed: int,
) -> Iterator[float]:
    """Take one step for each item asked for, and yield its loss.

    The batch of a step is a function of (seed, step).  The loop calls nothing back: whoever
    iterates decides when to look at the model, what to record and when to stop.
    """
    vector, gradient = _as_one([weight for weight in weights if weight.requires_grad])
    update = _Update(vector, gradient)
    for step in range(schedule.steps):
        batch = task.sample_to_train(
            schedule.batch, schedule.context, generator("train", seed, step)
        )
        if batch.asks_last:
            loss = loss_and_gradient(batch.tokens, batch.answers)
        else:
            loss = loss_and_gradient(batch.inputs, batch.targets, batch.where)
        gradient *= (schedule.clip / (torch.linalg.vector_norm(gradient) + 1e-6)).clamp(max=1)
        update(schedule.rate_at(step))
        yield loss.item()


class _Update:
    """AdamW without weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 2).

    PyTorch's function; its optimizer's bookkeeping takes longer than the arithmetic.
    """

    def __init__(self, weights: Tensor, gradient: Tensor) -> None:
        self.weights, self.gradient = weights, gradient
        self.mean, self.square = torch.zeros_like(weights), torch.zeros_like(weights)
        self.count = torch.zeros(())

    def __call__(self, rate: float) -> None:
        adamw(
            *([self.weights], [self.gradient], [self.mean], [self.square], [], [self.count]),
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=rate,
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
        )


def _as_one(parameters: list[nn.Parameter]) -> tuple[Tensor, Tensor]:
    """A vector of all parameters, which become views of it, and one of their gradients likewise.

    AdamW works number by number and the clip looks at all of them together, so neither can tell;
    but a call for each of many small tensors takes longer than the arithmetic.
    """
    vector = nn.utils.parameters_to_vector(parameters).detach()
    gradient = torch.zeros_like(vector)
    sizes = [p.numel() for p in parameters]
    parts = zip(parameters, vector.split(sizes), gradient.split(sizes), strict=True)
    for parameter, weight, slope in parts:
        parameter.data = weight.view_as(parameter)
        parameter.grad = slope.view_as(parameter)
    return vector, gradient
