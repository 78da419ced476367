"""The training loop: an iterator of steps that knows no task and no model by name."""

from collections.abc import Callable, Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from recall_arena.config import added, frozen
from recall_arena.curriculum import Course, Curriculum
from recall_arena.tasks.task import Task


@frozen
class Schedule:
    """How a model is trained: by Adam or AdamW, on fresh sequences at every step.

    Attributes:
        rate: the peak learning rate
        steps: the budget; the rate's schedule is laid out over it
        context: L, the tokens before the query in every training sequence, or in the longest
        batch: sequences a step
        warmup: steps over which the rate rises linearly from zero
        decay: the share of the budget, at its end, over which the rate falls linearly to zero
        clip: the largest norm of the gradient
        decay_steps: the fall takes so many steps instead of a share of the budget
        optimizer: "adamw", whose weight decay shrinks weights, or "adam", where it is a gradient
        weight_decay: of weights with two axes or more, but for embeddings and recurrences' own
        shortest: each step's length is drawn between this one and `context`
        curriculum: easy lengths, or an easier task, first

    Raises:
        ValueError: for a rate, budget, batch or clip that is not positive, a decay outside 0..1
            or longer than the budget, a negative weight decay, a range that ends before it begins
    """

    rate: float
    steps: int
    context: int = 64
    batch: int = 64
    warmup: int = 200
    decay: float = 0.2
    clip: float = 1.0
    decay_steps: int | None = added(default=None)
    optimizer: Literal["adam", "adamw"] = added(default="adamw")
    weight_decay: float = added(default=0.0)
    shortest: int | None = added(default=None)
    curriculum: Curriculum = added(default=Curriculum())

    def __post_init__(self) -> None:
        for name in ("rate", "steps", "context", "batch", "clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.warmup < 0:
            raise ValueError(f"warmup must not be negative, got {self.warmup}")
        if not 0 <= self.decay <= 1:
            raise ValueError(f"decay must be in 0..1, got {self.decay}")
        for name, most in (("decay_steps", self.steps), ("shortest", self.context)):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= most:
                raise ValueError(f"{name} must be in 0..{most}, got {value}")
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay must not be negative, got {self.weight_decay}")

    @property
    def falling(self) -> float:
        """The steps over which the rate falls, at the end."""
        share = self.decay * self.steps
        return share if self.decay_steps is None else float(self.decay_steps)

    def rate_at(self, step: int) -> float:
        """The learning rate of step 0, 1, ..., steps - 1."""
        rise = (step + 1) / max(self.warmup, 1)
        fall = (self.steps - step) / max(self.falling, 1)
        return self.rate * min(rise, 1.0, fall)

    def course(self, task: Task) -> Course:
        """The task and length of each step.  Raises ValueError if they do not fit the task."""
        return Course(task, self.context, self.shortest, self.steps, self.curriculum)


LossAndGradient = Callable[..., Tensor]
"""(tokens, answers), or (inputs, targets, where) where not just the last token is asked, to the
mean loss; the gradient then stands in each weight's `grad`, written over."""


class Training:
    """The loop: one step for each item asked for, which is its loss.

    The batch of a step is a function of (seed, step), and of the course's stage where a gated
    curriculum has stages.  The loop calls nothing back: whoever iterates decides when to look at
    the model, what to record, when to stop, and moves on a course that waits for accuracies.
    `done` counts the steps.  Raises ValueError if there is a gate and nobody holds the course.
    """

    def __init__(
        self,
        weights: Iterable[nn.Parameter],
        loss_and_gradient: LossAndGradient,
        task: Task,
        schedule: Schedule,
        seed: int,
        course: Course | None = None,
    ) -> None:
        self.done = 0
        self._loss_and_gradient, self._seed = loss_and_gradient, seed
        self.follow(schedule, course or _ungated(schedule.course(task)))
        trained = [weight for weight in weights if weight.requires_grad]
        decay = _decay(trained, schedule.weight_decay)
        self._update = _Update(*_as_one(trained), decay, adam=schedule.optimizer == "adam")

    def follow(self, schedule: Schedule, course: Course) -> None:
        """Take the steps that are to come by this schedule and course."""
        self.schedule, self.course = schedule, course

    def __iter__(self) -> "Training":
        return self

    def __next__(self) -> float:
        if self.done >= self.schedule.steps:
            raise StopIteration
        update, schedule = self._update, self.schedule
        batch = self.course.sample(self.done, schedule.batch, self._seed)
        if batch.asks_last:
            loss = self._loss_and_gradient(batch.tokens, batch.answers)
        else:
            loss = self._loss_and_gradient(batch.inputs, batch.targets, batch.where)
        norm = torch.linalg.vector_norm(update.gradient)
        update.gradient *= (schedule.clip / (norm + 1e-6)).clamp(max=1)
        update(schedule.rate_at(self.done))
        self.done += 1
        return loss.item()

    def optimizer_state(self) -> dict[str, Tensor]:
        """The optimizer's tensors by name; with the weights and `done`, all that a loop is."""
        return self._update.moments

    def go_on(self, done: int, optimizer_state: Mapping[str, Tensor]) -> None:
        """Continue as a loop that had taken `done` steps, once the weights are those that it had.

        Raises KeyError for a tensor that is missing, RuntimeError for one of another size.
        """
        self.done = done
        for name, tensor in self._update.moments.items():
            tensor.copy_(optimizer_state[name])


def _ungated(course: Course) -> Course:
    if course.waits:
        raise ValueError("a gated curriculum needs a course, and accuracies that move it on")
    return course


class _Update:
    """Adam and AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 2).

    PyTorch's function; its optimizer's bookkeeping takes longer than the arithmetic.  Without
    weight decay the two are one; with it, Adam's is a gradient and AdamW's is not.

    decay  of each number, None for none at all
    """

    def __init__(self, weights: Tensor, gradient: Tensor, decay: Tensor | None, adam: bool) -> None:
        self.weights, self.gradient, self.decay, self.adam = weights, gradient, decay, adam
        shapes = {"mean": weights.shape, "square": weights.shape, "count": ()}
        self.moments = {name: weights.new_zeros(shape) for name, shape in shapes.items()}

    def __call__(self, rate: float) -> None:
        if self.decay is not None and self.adam:
            self.gradient.addcmul_(self.weights, self.decay)
        elif self.decay is not None:
            self.weights.addcmul_(self.weights, self.decay, value=-rate)
        mean, square, count = self.moments.values()
        adamw(
            *([self.weights], [self.gradient], [mean], [square], [], [count]),
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=rate,
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
        )


def _decay(weights: list[nn.Parameter], decay: float) -> Tensor | None:
    """The weight decay of each number, in the order of `_as_one`; None if there is none.

    Norms, biases and whatever else has one axis are exempt, and weights that say so of
    themselves, by the mark `_no_weight_decay` that mamba-ssm's weights have too.
    """
    if decay == 0:
        return None
    exempt = [w.ndim < 2 or getattr(w, "_no_weight_decay", False) for w in weights]
    each = zip(weights, exempt, strict=True)
    return torch.cat([w.new_full((w.numel(),), 0.0 if free else decay) for w, free in each])


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
