"""A study of eight small runs and one figure, for what holds of any study's command.

Commands take it by `--import small_study` and `--scale whole`.
"""

import polars as pl

from recall_arena.evaluation import Contexts
from recall_arena.figures import by_context
from recall_arena.model import named
from recall_arena.records import Store
from recall_arena.runs import Checks, Run
from recall_arena.studies import STUDIES, NamedRun, Picture, Plan, Section, Study, Table
from recall_arena.tasks import AssociativeRecall
from recall_arena.training import Schedule

SEEDS = range(8)
RUNS = [
    Run(
        AssociativeRecall(),
        named("mamba", width=8),
        Schedule(rate=1e-2, steps=150, context=16, batch=16),
        Checks(every=50, sequences=50),
        Contexts(at=(16, 32), sequences=50),
        seed,
    )
    for seed in SEEDS
]


def _runs(plan: Plan, store: Store) -> list[NamedRun]:
    return [NamedRun(f"seed {run.seed}", run) for run in RUNS]


def _sections(frame: pl.DataFrame, plan: Plan) -> list[Section]:
    drawing = by_context(frame, "All seeds", ["tau"])
    rows = frame.filter(pl.col("kind") == "run").select("seed", "ended_by").sort("seed")
    tables = (Table("runs", "Every run.", rows),)
    return [Section("The runs", "What do they find?", (), (Picture("runs", drawing),), tables)]


SMALL = Study(
    name="small",
    question="Does the command work?",
    parts=(1,),
    scales={"whole": "some seconds"},
    runs=_runs,
    size=lambda plan: len(RUNS),
    select=lambda frame, plan: frame.filter(pl.col("address").is_in([run.address for run in RUNS])),
    sections=_sections,
)
STUDIES["small"] = SMALL
