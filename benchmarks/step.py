"""How fast is a whole training step: data, forward, loss, backward, clipping, AdamW?

The assignment's six models.  PyTorch's contenders go through `recall_arena.training.train`
like ours, with other mixers; JAX does the whole step in one jit.  Where the first layer can
project each token once instead of each position, JAX does as ours does, and PyTorch's eager mixers
take part both ways.
"""

import itertools

import torch
from torch.nn import functional as F

from benchmarks import floors, roofline
from benchmarks.measuring import OURS, Builders, Contender, Results, Stage, compare, optional
from benchmarks.report import Options, Report, Setting
from benchmarks.torch_models import (
    arrays,
    eager,
    eager_with_mambapy,
    projected_once,
    with_mixers,
)
from recall_arena.model import ModelSpec, SequenceModel, named
from recall_arena.seeds import generator
from recall_arena.tasks import AssociativeRecall, Batch
from recall_arena.training import Schedule, train
from recall_arena.zoo import ZOO

PART = "step"
TASK = AssociativeRecall()

Unrolls = dict[tuple[int, int], int]
"""The best number of unrolled positions by (width, context), found on the Mamba stack."""


def run(options: Options, report: Report) -> None:
    """Every model at every width and length."""
    unrolls: Unrolls = {}
    widths, lengths = options.widths or (8, 64), options.lengths or (64,)
    for width, length, name in itertools.product(widths, lengths, _mamba_first()):
        setting = Setting(PART, name, {"batch": options.batch, "L": length, "d": width})
        spec, schedule = planned(setting)
        rows = compare(setting, builders(spec, schedule, unrolls, report), options, report)
        works = {"step": roofline.step_work(spec, options.batch, length + 1)}
        floors.add(setting, works, rows, options, report)


def _mamba_first() -> list[str]:
    """The models' names; the hybrids take over what the Mamba stack found."""
    return sorted(ZOO, key=lambda name: name != "mamba")


def planned(setting: Setting) -> tuple[ModelSpec, Schedule]:
    """The model that the setting names, and more steps than anybody takes."""
    width, length = setting.shape["d"], setting.shape["L"]
    spec = named(setting.subject, vocabulary=16, width=width, longest_context=3 * length)
    return spec, Schedule(1e-3, 1_000_000, length, setting.shape["batch"])


def prepared(spec: ModelSpec, schedule: Schedule) -> tuple[SequenceModel, Batch]:
    """The model before its first step, always with the same weights, and a batch to check it by."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = SequenceModel(spec)
    return model, TASK.sample(schedule.batch, schedule.context, generator("benchmark"))


def builders(spec: ModelSpec, schedule: Schedule, unrolls: Unrolls, report: Report) -> Builders:
    """The model's contenders, all with the weights of ours."""
    model, batch = prepared(spec, schedule)

    def in_jax() -> Contender:
        with optional():
            from benchmarks import jax_contenders, jax_training

        def unrolled(unroll: int) -> Contender:
            converted = jax_training.converted(spec, model, unroll)
            name = f"JAX, unroll {unroll}" if "mamba" in spec.layers else "JAX"
            return jax_contenders.training(name, *converted, TASK, schedule, batch)

        if "mamba" not in spec.layers:
            return unrolled(1)
        place = (spec.width, schedule.context)
        if place in unrolls:
            return unrolled(unrolls[place])
        best, unrolls[place] = jax_contenders.best_unroll(unrolled, report)
        return best

    def ours() -> Contender:
        return training(OURS, model, schedule, batch)

    def in_torch() -> Contender:
        return training("PyTorch, eager", with_mixers(model, eager()), schedule, batch)

    def in_torch_once() -> Contender:
        return training("PyTorch, eager, each token once", projected_once(model), schedule, batch)

    def with_mambapy() -> Contender:
        other = with_mixers(model, eager_with_mambapy)
        return training("PyTorch, mambapy", other, schedule, batch)

    made: Builders = {OURS: ours, "JAX": in_jax, "PyTorch, eager": in_torch}
    if spec.positions == "none":
        made["PyTorch, eager, each token once"] = in_torch_once
    if "mamba" in spec.layers:
        made["PyTorch, mambapy"] = with_mambapy
    return made


def training(name: str, model: SequenceModel, schedule: Schedule, batch: Batch) -> Contender:
    """Steps of a PyTorch model; checked by the loss and the gradients on `batch`."""
    losses = train(model, TASK, schedule, seed=0)
    stages: dict[str, Stage] = {"step": lambda _: next(losses)}
    return Contender(name, lambda: loss_and_gradients(model, batch), [stages])


def loss_and_gradients(model: SequenceModel, batch: Batch) -> Results:
    """The loss, as "output", and the gradient of every trained weight, as a step gets them."""
    wanted = {name: p for name, p in model.named_parameters() if p.requires_grad}
    compiled = model.loss_with_gradient(batch.tokens)
    loss = None if compiled is None else compiled(batch.tokens, batch.answers)
    if loss is None:
        loss = F.cross_entropy(model(batch.tokens), batch.answers)
        loss.backward()
    gradients = {name: p.grad.clone() for name, p in wanted.items() if p.grad is not None}
    for weight in wanted.values():
        weight.grad = None
    return arrays({"output": loss, **gradients})
