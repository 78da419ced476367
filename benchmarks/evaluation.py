"""How fast is a model's accuracy counted at every length from 2 to 192?

The assignment's six models with fresh weights, whose answers are wrong and take as long as
right ones.  Drawing the test sequences is not timed: it is the same for all.
"""

import itertools

import torch
from torch import nn

from benchmarks import ours
from benchmarks.measuring import Builders, Contender, Results, compare, optional
from benchmarks.options import Options
from benchmarks.report import Report
from benchmarks.rows import OURS, Setting
from benchmarks.torch_mixers import eager
from benchmarks.torch_models import EagerModel
from recall_arena.evaluation import held_out
from recall_arena.model import ModelSpec, named
from recall_arena.tasks import AssociativeRecall, Batch
from recall_arena.zoo import ZOO

PART = "evaluation"
TASK = AssociativeRecall()
LONGEST = 192


def run(options: Options, report: Report) -> None:
    """Every model at every width."""
    lengths = range(TASK.shortest_context, LONGEST + 1, options.stride)
    batches = [held_out(TASK, length, options.sequences, "benchmark") for length in lengths]
    for width, name in itertools.product(options.widths or (8,), filter(options.asks, ZOO)):
        spec = named(name, vocabulary=16, width=width, longest_context=LONGEST)
        sizes = {"sequences": options.sequences, "lengths": len(lengths), "d": width}
        compare(Setting(PART, name, sizes), builders(spec, batches, report), options, report)


def builders(spec: ModelSpec, batches: list[Batch], report: Report) -> Builders:
    """The model's contenders, all with the weights of ours."""
    model = ours.fresh(spec)

    def in_jax() -> Contender:
        with optional():
            from benchmarks import jax_contenders, jax_training

        chunked = list(map(ours.chunks, batches))

        def unrolled(unroll: int, of: list[list[Batch]]) -> Contender:
            converted = jax_training.converted(spec, model, unroll)
            name = f"JAX, unroll {unroll}" if "mamba" in spec.layers else "JAX"
            return jax_contenders.evaluation(name, *converted, of)

        if "mamba" not in spec.layers:
            return unrolled(1, chunked)
        middle = [chunked[len(chunked) // 2]]
        _, unroll = jax_contenders.best_unroll(lambda u: unrolled(u, middle), report)
        return unrolled(unroll, chunked)

    def in_torch() -> Contender:
        other = EagerModel(spec, eager(), model.state_dict())
        return contender("PyTorch, eager", other, batches)

    made: Builders = {OURS: lambda: contender(OURS, model, batches), "JAX": in_jax}
    return made | {"PyTorch, eager": in_torch}


def contender(name: str, model: nn.Module, batches: list[Batch]) -> Contender:
    """A PyTorch model; checked by its logits at every length."""
    logits = ours.logits(model)

    def results() -> Results:
        return {
            f"logits at length {batch.tokens.shape[1]}": torch.cat(
                [logits(chunk.tokens) for chunk in ours.chunks(batch)]
            ).numpy()
            for batch in batches
        }

    def count(_: object) -> list[int]:
        return [ours.correct(logits, batch) for batch in batches]

    return Contender(name, results, [{"all lengths": count}])
