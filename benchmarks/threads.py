"""What do more threads bring to a training step?

The same model, the same steps; one thread and several take turns within one run, so that a slow
minute of the machine hits both.  Both do the same arithmetic in the same order: the same bits.
"""

import itertools
from functools import partial

import torch

from benchmarks import step
from benchmarks.measuring import OURS, Builders, Contender, Results, Stage, compare
from benchmarks.report import Options, Report, Setting
from recall_arena.model import LAYERS, SequenceModel, named_model
from recall_arena.seeds import generator
from recall_arena.training import Schedule, train

PART = "threads"


def run(options: Options, report: Report) -> None:
    """Every model at every width and length; nothing where `options` has one thread."""
    if options.threads == 1:
        setting = Setting(PART, "every model", {"threads": 1})
        report.leave_out(setting, "one thread", "for there is none beside it; --threads 2 adds one")
        return
    widths, lengths = options.widths or (8, 64), options.lengths or (64,)
    for width, length, name in itertools.product(widths, lengths, LAYERS):
        setting = Setting(PART, name, {"batch": options.batch, "L": length, "d": width})
        compare(setting, builders(name, setting.shape, options.threads), options, report)


def builders(name: str, shape: dict[str, int], threads: int) -> Builders:
    """Several threads, and one."""
    made: Builders = {OURS: partial(contender, f"{OURS}, {threads} threads", name, shape, threads)}
    return made | {"one thread": partial(contender, "one thread", name, shape, 1)}


def contender(title: str, name: str, shape: dict[str, int], threads: int) -> Contender:
    """Steps of a model on so many threads; checked by the loss and the gradients of a batch."""
    spec = named_model(name, vocabulary=16, width=shape["d"], longest_context=3 * shape["L"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = SequenceModel(spec)
    losses = train(model, step.TASK, Schedule(1e-3, 1_000_000, shape["L"], shape["batch"]), seed=0)
    batch = step.TASK.sample(shape["batch"], shape["L"], generator("benchmark"))

    def results() -> Results:
        torch.set_num_threads(threads)
        return step.loss_and_gradients(model, batch)

    def one_step(_: object) -> float:
        torch.set_num_threads(threads)
        return next(losses)

    stages: dict[str, Stage] = {"step": one_step}
    return Contender(title, results, [stages])
