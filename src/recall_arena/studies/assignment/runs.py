"""The assignment's runs.  Unlike the rest of the study they need torch."""

from collections.abc import Sequence
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
from recall_arena.studies.assignment import rates, settings
from recall_arena.studies.assignment.scales import CONTEXT, SCALES, Effort, Efforts
from recall_arena.studies.assignment.settings import LONGEST, VOCABULARY, Setting, asked
from recall_arena.studies.study import NamedRun, Plan
from recall_arena.tasks import AssociativeRecall
from recall_arena.training import Schedule
from recall_arena.wording import setting_name


def setting_run(
    setting: Setting,
    rate: float,
    effort: Effort,
    seed: int,
    contexts: Contexts,
    *,
    mixed: bool = False,
    repeats: bool = True,
) -> Run:
    """The run of a setting with a learning rate, a budget and a seed, at L or `mixed` lengths."""
    return Run(
        task=AssociativeRecall(VOCABULARY, setting.M, setting.tau, repeats=repeats),
        model=named(setting.model, vocabulary=VOCABULARY, width=setting.d, longest_context=LONGEST),
        schedule=Schedule(
            rate=rate,
            steps=effort.steps,
            context=CONTEXT,
            decay_steps=effort.decay_steps,
            shortest=settings.shortest(setting.tau, mixed=mixed),
        ),
        contexts=contexts,
        seed=seed,
    )


def assignment_runs(plan: Plan, among: pl.DataFrame | None = None) -> list[NamedRun]:
    """A run a setting and seed, at the rate that the search chose; `among` these settings."""
    wanted = asked(plan)
    if among is not None:
        wanted = wanted.join(among, on=SETTING, how="semi", maintain_order="left")
    scale = SCALES[plan.scale]
    contexts = Contexts(first=scale.first, last=LONGEST, stride=scale.stride)
    best = rates.best(rates.published(plan)).select(*SETTING, "rate")
    chosen = dict(zip(best.select(SETTING).rows(), best["rate"], strict=True))
    named_runs = []
    for setting in _longest_first(wanted):
        effort = scale.problems[setting.problem].runs_of(setting.model)
        rate = chosen[setting.model, setting.d, setting.M, setting.tau]
        for seed in effort.of(plan.seeds):
            run = setting_run(setting, rate, effort, seed, contexts, mixed=scale.mixed)
            named_runs.append(NamedRun(f"{_name(setting)}, seed {seed}", run))
    return named_runs


def search_runs(plan: Plan, store: Store) -> list[NamedRun]:
    """Every rate on every setting; a grid grows once the store has all runs in it."""
    scale = SCALES[plan.scale]
    return [
        found
        for setting in _longest_first(settings.searched(plan))
        for found in search_of(
            setting, scale.problems[setting.problem], store, seeds=plan.seeds, mixed=scale.mixed
        )
    ]


def search_of(
    setting: Setting, efforts: Efforts, store: Store, *, seeds: int | None, mixed: bool
) -> list[NamedRun]:
    """The search runs of a setting: those whose rates `rates.grid` takes from what is stored."""
    at_training_length = Contexts(first=CONTEXT, last=CONTEXT)
    each = efforts.search.of(seeds)

    def runs(grid: Sequence[float]) -> list[Run]:
        return [
            setting_run(setting, rate, efforts.search, seed, at_training_length, mixed=mixed)
            for rate in grid
            for seed in each
        ]

    records = store.read_all(run.address for run in runs(rates.LADDER))
    tried = rates.trials_of(frame_of(records))
    return [
        NamedRun(f"{_name(setting)}, rate {run.schedule.rate:g}, seed {run.seed}", run)
        for run in runs(rates.grid(efforts.rates[setting.d], len(each), tried))
    ]


def choose_rates(plan: Plan, store: Store) -> Path:
    """Keep the search's trials beside the study, which chooses among them, with other scales'.

    Raises ValueError if search runs are missing.
    """
    wanted = [one.run.address for one in search_runs(plan, store)]
    found = store.read_all(wanted)
    if len(found) < len(wanted):
        raise ValueError(f"{len(found)} of {len(wanted)} search runs are in {store.folder}")
    own, kept = rates.trials_of(frame_of(found)), rates.kept()
    others = kept.join(settings.searched(plan), on=settings.WAY, how="anti", nulls_equal=True)
    trials = pl.concat([others, own.cast(others.schema)])
    trials = trials.sort(*settings.WAY, "rate", "seed", nulls_last=False)
    atomic.write(rates.FILE, trials.write_csv().encode(), replace=True)
    return rates.FILE


def _longest_first(table: pl.DataFrame) -> list[Setting]:
    ordered = table.sort("d", "problem", descending=True, maintain_order=True)
    return [Setting(**row) for row in ordered.select("problem", *SETTING).rows(named=True)]


def _name(setting: Setting) -> str:
    return setting_name(asdict(setting), ("d", "M", "tau"))
