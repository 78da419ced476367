"""How fast is a whole training step: data, forward, loss, backward, clipping, AdamW?

The assignment's six models, and two layers of Mamba without convolution, of attention with
convolutions (CAT, arXiv:2407.05591), and of the gated delta rule, without JAX.  PyTorch's
contenders go through `recall_arena.training.Training` like ours, with other mixers; JAX does the
whole step in one jit.  Where the first layer can project each token once instead of each position,
JAX does as ours does, and PyTorch's eager mixers come both ways.
"""

import itertools

from torch import nn

from benchmarks import floors, ours
from benchmarks.block import CAT
from benchmarks.measuring import Builders, Contender, Stage, compare, optional
from benchmarks.options import Options
from benchmarks.report import Report
from benchmarks.rows import OURS, Setting
from benchmarks.step_work import step_work
from benchmarks.torch_mixers import MixerMaker, eager, eager_with_mambapy
from benchmarks.torch_models import EagerModel
from recall_arena.mixers import GatedDelta, Mamba
from recall_arena.model import ModelSpec, SequenceModel, named
from recall_arena.seeds import generator
from recall_arena.tasks import AssociativeRecall, Batch
from recall_arena.training import Schedule
from recall_arena.zoo import ZOO

PART = "step"
TASK = AssociativeRecall()
SUBJECTS = (*ZOO, *(f"{text}, {text}" for text in ("mamba(window=1)", CAT, "gated-delta")))

Unrolls = dict[tuple[int, int], int]
"""The best number of unrolled positions by (width, context), found on the Mamba stack."""


def run(options: Options, report: Report) -> None:
    """Every model at every width and length."""
    unrolls: Unrolls = {}
    widths, lengths = options.widths or (8, 64), options.lengths or (64,)
    for width, length, name in itertools.product(widths, lengths, _mamba_first(options)):
        setting = Setting(PART, name, {"batch": options.batch, "L": length, "d": width})
        spec, schedule = planned(setting)
        rows = compare(setting, builders(spec, schedule, unrolls, report), options, report)
        works = {"step": step_work(spec, options.batch, length + 1)}
        floors.add(setting, works, rows, options, report)


def _mamba_first(options: Options) -> list[str]:
    """The models' names; the hybrids take over what the Mamba stack found."""
    return sorted(filter(options.asks, SUBJECTS), key=lambda name: name != "mamba")


def planned(setting: Setting) -> tuple[ModelSpec, Schedule]:
    """The model that the setting names, and more steps than anybody takes."""
    width, length = setting.shape["d"], setting.shape["L"]
    spec = named(setting.subject, vocabulary=16, width=width, longest_context=3 * length)
    return spec, Schedule(1e-3, 1_000_000, length, setting.shape["batch"])


def prepared(spec: ModelSpec, schedule: Schedule) -> tuple[SequenceModel, Batch]:
    """The model before its first step, and a batch to check it by."""
    batch = TASK.sample(schedule.batch, schedule.context, generator("benchmark"))
    return ours.fresh(spec), batch


def builders(spec: ModelSpec, schedule: Schedule, unrolls: Unrolls, report: Report) -> Builders:
    """The model's contenders, all with the weights of ours."""
    model, batch = prepared(spec, schedule)
    scans = any(isinstance(options, Mamba) for options in spec.mixers)
    delta = any(isinstance(options, GatedDelta) for options in spec.mixers)

    def in_jax() -> Contender:
        with optional():
            from benchmarks import jax_contenders, jax_training

        def unrolled(unroll: int) -> Contender:
            converted = jax_training.converted(spec, model, unroll)
            name = f"JAX, unroll {unroll}" if scans else "JAX"
            return jax_contenders.training(name, *converted, TASK, schedule, batch)

        if not scans:
            return unrolled(1)
        place = (spec.width, schedule.context)
        if place in unrolls:
            return unrolled(unrolls[place])
        best, unrolls[place] = jax_contenders.best_unroll(unrolled, report)
        return best

    def in_torch(name: str, mixer: MixerMaker, *, project_once: bool = False) -> None:
        def build() -> Contender:
            other = EagerModel(spec, mixer, model.state_dict(), project_once=project_once)
            return training(name, other, schedule, batch)

        made[name] = build

    made: Builders = {OURS: lambda: training(OURS, model, schedule, batch)}
    if not delta:
        made["JAX"] = in_jax
    in_torch("PyTorch, eager", eager())
    if spec.positions == "none":
        in_torch("PyTorch, eager, each token once", eager(), project_once=True)
    if "mamba" in spec.layers:
        in_torch("PyTorch, mambapy", eager_with_mambapy)
    return made


def training(name: str, model: nn.Module, schedule: Schedule, batch: Batch) -> Contender:
    """Steps of a PyTorch model; checked by the loss and the gradients on `batch`."""
    losses = ours.steps(model, TASK, schedule)
    stages: dict[str, Stage] = {"step": lambda _: next(losses)}
    return Contender(name, lambda: ours.loss_and_gradients(model, batch), [stages])
