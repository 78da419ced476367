"""Would training several models at once pay?  A bound, before anybody builds it.

Models of one configuration trained together share the bookkeeping of a step: Python, autograd,
dispatch.  What they cannot share is drawing each one's batch and the kernels' work on it.  So a
step of one model on all of their batches is as quick as they could be together, or quicker, for
it has one set of weights to read, to add gradients to and to update.
"""

import itertools
from collections.abc import Iterator

import torch
from torch.nn import functional as F

from benchmarks.measuring import OURS, Builders, Contender, Results, Stage, compare
from benchmarks.report import Options, Report, Setting
from benchmarks.torch_models import arrays
from recall_arena.model import SequenceModel, named
from recall_arena.seeds import generator
from recall_arena.tasks import AssociativeRecall, Batch
from recall_arena.tasks.task import Task
from recall_arena.training import Schedule, train
from recall_arena.zoo import ZOO

PART = "together"
MODELS = 4
TASK = AssociativeRecall()


def run(options: Options, report: Report) -> None:
    """Every model at every width and length."""
    widths, lengths = options.widths or (8, 64), options.lengths or (64,)
    for width, length, name in itertools.product(widths, lengths, ZOO):
        shape = {"models": MODELS, "batch": options.batch, "L": length, "d": width}
        compare(Setting(PART, name, shape), builders(name, shape), options, report)


def builders(name: str, shape: dict[str, int]) -> Builders:
    """Models that take turns, and the bound for models that share a step."""
    spec = named(name, vocabulary=16, width=shape["d"], longest_context=3 * shape["L"])
    batches = [
        TASK.sample(shape["batch"], shape["L"], generator("together", i)) for i in range(MODELS)
    ]
    schedule = Schedule(1e-3, 1_000_000, shape["L"], shape["batch"])

    def model() -> SequenceModel:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return SequenceModel(spec)

    def apart() -> Contender:
        losses = [train(model(), TASK, schedule, seed) for seed in range(MODELS)]
        fresh = model()
        return _contender(
            f"{OURS}, a step of each", lambda _: [next(loss) for loss in losses], fresh, batches
        )

    def together() -> Contender:
        losses = train(model(), _Joined(), schedule, seed=0)
        name = "one step on all batches: the bound"
        return _contender(name, lambda _: next(losses), model(), [_joined(batches)])

    return {OURS: apart, "bound": together}


def _contender(name: str, step: Stage, model: SequenceModel, batches: list[Batch]) -> Contender:
    """Checked by the mean of its batches' losses and gradients."""

    def results() -> Results:
        wanted = {name: p for name, p in model.named_parameters() if p.requires_grad}
        losses = [F.cross_entropy(model(batch.tokens), batch.answers) for batch in batches]
        loss = torch.stack(losses).mean()
        gradients = torch.autograd.grad(loss, list(wanted.values()))
        return arrays({"output": loss, **dict(zip(wanted, gradients, strict=True))})

    return Contender(name, results, [{"step": step}])


def _joined(batches: list[Batch]) -> Batch:
    return Batch(
        torch.cat([batch.tokens for batch in batches]),
        torch.cat([batch.answers for batch in batches]),
    )


class _Joined(Task):
    """As many batches as models, one behind the other."""

    shortest_context = TASK.shortest_context

    def sample(self, batch: int, context: int, rng: torch.Generator) -> Batch:
        drawn: Iterator[Batch] = (TASK.sample(batch, context, rng) for _ in range(MODELS))
        return _joined(list(drawn))
