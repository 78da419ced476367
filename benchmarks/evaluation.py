"""How fast is a model's accuracy counted at every length from 2 to 192?

The assignment's six models with fresh weights, whose answers are wrong and take as long as
right ones.  Drawing the test sequences is not timed: it is the same for all.
"""

import itertools

import torch

from benchmarks.measuring import OURS, Builders, Contender, Results, compare, optional
from benchmarks.report import Options, Report, Setting
from benchmarks.torch_models import eager, with_mixers
from recall_arena.evaluation import TOKENS_AT_ONCE, accuracy, held_out
from recall_arena.model import ModelSpec, SequenceModel, named
from recall_arena.tasks import AssociativeRecall, Batch
from recall_arena.zoo import ZOO

PART = "evaluation"
TASK = AssociativeRecall()
LONGEST = 192


def run(options: Options, report: Report) -> None:
    """Every model at every width."""
    lengths = range(TASK.shortest_context, LONGEST + 1, options.stride)
    batches = [held_out(TASK, length, options.sequences, "benchmark") for length in lengths]
    for width, name in itertools.product(options.widths or (8,), ZOO):
        spec = named(name, vocabulary=16, width=width, longest_context=LONGEST)
        sizes = {"sequences": options.sequences, "lengths": len(lengths), "d": width}
        compare(Setting(PART, name, sizes), builders(spec, batches, report), options, report)


def builders(spec: ModelSpec, batches: list[Batch], report: Report) -> Builders:
    """The model's contenders, all with the weights of ours."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = SequenceModel(spec)

    def in_jax() -> Contender:
        with optional():
            from benchmarks import jax_contenders, jax_training

        parts = list(map(chunks, batches))

        def unrolled(unroll: int, of: list[list[Batch]]) -> Contender:
            converted = jax_training.converted(spec, model, unroll)
            name = f"JAX, unroll {unroll}" if "mamba" in spec.layers else "JAX"
            return jax_contenders.evaluation(name, *converted, of)

        if "mamba" not in spec.layers:
            return unrolled(1, parts)
        middle = [parts[len(parts) // 2]]
        _, unroll = jax_contenders.best_unroll(lambda u: unrolled(u, middle), report)
        return unrolled(unroll, parts)

    return {
        OURS: lambda: contender(OURS, model, batches),
        "JAX": in_jax,
        "PyTorch, eager": lambda: contender("PyTorch, eager", with_mixers(model, eager()), batches),
    }


def chunks(batch: Batch) -> list[Batch]:
    """Parts of equal size, small enough for the cache, so that JAX compiles each length once.

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


def contender(name: str, model: SequenceModel, batches: list[Batch]) -> Contender:
    """A PyTorch model; checked by its logits at every length."""

    @torch.inference_mode()
    def results() -> Results:
        return {
            f"logits at length {batch.tokens.shape[1]}": torch.cat(
                [model(chunk.tokens) for chunk in chunks(batch)]
            ).numpy()
            for batch in batches
        }

    def turn(_: object) -> list[int]:
        return [accuracy(model, batch).correct for batch in batches]

    return Contender(name, results, [{"all lengths": turn}])
