"""What do more threads bring to a training step?

The same model, the same steps; one thread and several take turns within one run, so that a slow
minute of the machine hits both.  Both do the same arithmetic in the same order: the same bits.
"""

import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from benchmarks import step
from benchmarks.measuring import Builders, Contender, compare
from benchmarks.options import Options
from benchmarks.report import Report
from benchmarks.rows import OURS, Setting
from recall_arena.zoo import ZOO

PART = "threads"


def run(options: Options, report: Report) -> None:
    """Every model at every width and length; nothing where `options` has one thread."""
    if options.threads == 1:
        report.say("threads: nothing to compare with one; --threads 2 adds another")
        return
    both = replace(options, contenders=())
    widths, lengths = options.widths or (8, 64), options.lengths or (64,)
    for width, length, name in itertools.product(widths, lengths, filter(options.asks, ZOO)):
        setting = Setting(PART, name, {"batch": options.batch, "L": length, "d": width})
        compare(setting, builders(setting, options.threads), both, report)


def builders(setting: Setting, threads: int) -> Builders:
    """Several threads, and one."""
    several = f"{OURS}, {threads} threads"
    return {
        OURS: partial(contender, several, setting, threads),
        "one thread": partial(contender, "one thread", setting, 1),
    }


def contender(name: str, setting: Setting, threads: int) -> Contender:
    """The setting's model, which always works on so many threads."""
    spec, schedule = step.planned(setting)
    model, batch = step.prepared(spec, schedule)
    made = step.training(name, model, schedule, batch)
    chains = [{stage: _on(threads, run) for stage, run in chain.items()} for chain in made.chains]
    return replace(made, results=_on(threads, made.results), chains=chains)


def _on(threads: int, call: Callable[..., Any]) -> Callable[..., Any]:
    def called(*given: object) -> object:
        torch.set_num_threads(threads)
        return call(*given)

    return called
