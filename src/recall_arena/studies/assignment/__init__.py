"""The assignment: attention against Mamba against hybrids, three problems from one command.

Cost: 28 runs a seed.  `recall study run assignment` says how far it is.
"""

from pathlib import Path

import polars as pl

from recall_arena.records import Store
from recall_arena.studies.assignment import rates
from recall_arena.studies.assignment.sections import search, sections
from recall_arena.studies.assignment.settings import (
    PROBLEMS,
    SCALES,
    on_settings,
    select,
    table_of,
)
from recall_arena.studies.study import NamedRun, Plan, Section, Study


def _runs(plan: Plan, store: Store) -> list[NamedRun]:
    from recall_arena.studies.assignment.runs import assignment_runs  # needs torch

    return assignment_runs(plan, store)


def _search_runs(plan: Plan, store: Store) -> list[NamedRun]:
    from recall_arena.studies.assignment.runs import search_runs  # needs torch

    return search_runs(plan, store)


def _choose(plan: Plan, store: Store) -> Path:
    from recall_arena.studies.assignment.runs import choose_rates  # needs torch

    return choose_rates(plan, store)


def _search_rows(frame: pl.DataFrame, plan: Plan) -> pl.DataFrame:
    rows = on_settings(frame, table_of(plan.parts, alone=True), SCALES[plan.scale].search_steps)
    own = rows.filter(pl.col("seed") == rates.SEED)
    return own.filter(pl.col("revision") == pl.col("revision").max())


def _search_sections(frame: pl.DataFrame, plan: Plan) -> list[Section]:
    return [search(rates.trials_of(frame))]


ASSIGNMENT = Study(
    name="assignment",
    question="Attention, Mamba or both: who recalls, how fast, and how far does it carry?",
    parts=PROBLEMS,
    scales={scale.name: scale.about for scale in SCALES.values()},
    seeds={scale.name: scale.seeds for scale in SCALES.values()},
    runs=_runs,
    size=lambda plan: table_of(plan.parts).height * plan.seeds,
    select=lambda frame, plan: select(frame, plan, rates.best(rates.published())),
    sections=sections,
)

RATES = Study(
    name="rates",
    question="Which learning rate does each model need on each task of the assignment?",
    parts=PROBLEMS,
    scales=dict.fromkeys(SCALES, "the assignment's search at that scale"),
    seeds=dict.fromkeys(SCALES, 1),
    runs=_search_runs,
    size=lambda plan: sum(len(rates.RATES[d]) for d in table_of(plan.parts, alone=True)["d"]),
    select=_search_rows,
    sections=_search_sections,
    choose=_choose,
)
