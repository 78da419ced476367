"""The assignment's runs.  Unlike the rest of the study they need torch."""

from dataclasses import asdict
from pathlib import Path

import polars as pl

from recall_arena import atomic
from recall_arena.claims import SETTING
from recall_arena.evaluation import Contexts
from recall_arena.frame import frame_of
from recall_arena.model import named
from recall_arena.records import Store
from recall_arena.runs import Run
from recall_arena.studies.assignment import rates
from recall_arena.studies.assignment.settings import (
    CONTEXT,
    LONGEST,
    SCALES,
    VOCABULARY,
    Setting,
    table_of,
)
from recall_arena.studies.study import NamedRun, Plan
from recall_arena.tasks import AssociativeRecall
from recall_arena.training import Schedule
from recall_arena.wording import setting_name


def setting_run(setting: Setting, rate: float, steps: int, seed: int, contexts: Contexts) -> Run:
    """The run of a setting with a learning rate, a budget and a seed."""
    return Run(
        task=AssociativeRecall(VOCABULARY, setting.M, setting.tau),
        model=named(setting.model, vocabulary=VOCABULARY, width=setting.d, longest_context=LONGEST),
        schedule=Schedule(rate=rate, steps=steps, context=CONTEXT),
        contexts=contexts,
        seed=seed,
    )


def assignment_runs(plan: Plan, store: Store) -> list[NamedRun]:
    """A run a setting and seed, at the rate that the search chose."""
    scale = SCALES[plan.scale]
    contexts = Contexts(first=scale.first, last=LONGEST, stride=scale.stride)
    best = rates.best(rates.published()).select(*SETTING, "rate")
    chosen = dict(zip(best.select(SETTING).rows(), best["rate"], strict=True))
    named_runs = []
    for setting in _longest_first(table_of(plan.parts)):
        rate = chosen[setting.model, setting.d, setting.M, setting.tau]
        for seed in range(plan.seeds):
            run = setting_run(setting, rate, scale.steps[setting.problem], seed, contexts)
            named_runs.append(NamedRun(f"{_name(setting)}, seed {seed}", run))
    return named_runs


def search_runs(plan: Plan, store: Store) -> list[NamedRun]:
    """Every rate on every setting; a grid grows once the store has all runs in it."""
    return [
        NamedRun(f"{_name(setting)}, rate {rate:g}", run)
        for setting in _longest_first(table_of(plan.parts, alone=True))
        for rate, run in _search(setting, plan, store).items()
    ]


def choose_rates(plan: Plan, store: Store) -> Path:
    """Keep the search's trials beside the study, which chooses among them.

    Raises ValueError if search runs are missing.
    """
    wanted = [one.run.address for one in search_runs(plan, store)]
    found = store.read_all(wanted)
    if len(found) < len(wanted):
        raise ValueError(f"{len(found)} of {len(wanted)} search runs are in {store.folder}")
    trials = rates.trials_of(frame_of(found))
    atomic.write(rates.FILE, trials.write_csv().encode(), replace=True)
    return rates.FILE


def _search(setting: Setting, plan: Plan, store: Store) -> dict[float, Run]:
    steps = SCALES[plan.scale].search_steps[setting.problem]
    at_training_length = Contexts(first=CONTEXT, last=CONTEXT)
    runs = {
        rate: setting_run(setting, rate, steps, rates.SEED, at_training_length)
        for rate in rates.LADDER
    }
    records = store.read_all(run.address for run in runs.values())
    tried = rates.trials_of(frame_of(records))
    return {rate: runs[rate] for rate in rates.grid(setting.d, tried)}


def _longest_first(settings: pl.DataFrame) -> list[Setting]:
    ordered = settings.sort("d", "problem", descending=True, maintain_order=True)
    return [Setting(**row) for row in ordered.rows(named=True)]


def _name(setting: Setting) -> str:
    return setting_name(asdict(setting), ("d", "M", "tau"))
