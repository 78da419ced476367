"""The assignment: attention against Mamba against hybrids, three problems from one command.

Cost: 28 runs a seed.  `recall study run assignment` says how far it is.
"""

from types import ModuleType

from recall_arena.studies.assignment import rates, settings
from recall_arena.studies.assignment.sections import search, sections
from recall_arena.studies.assignment.settings import PROBLEMS, SCALES, table_of
from recall_arena.studies.study import Study


def _training() -> ModuleType:
    from recall_arena.studies.assignment import runs  # needs torch, as all the rest does not

    return runs


ASSIGNMENT = Study(
    name="assignment",
    question="Attention, Mamba or both: who recalls, how fast, and how far does it carry?",
    parts=PROBLEMS,
    scales={name: scale.about for name, scale in SCALES.items()},
    seeds={name: scale.seeds for name, scale in SCALES.items()},
    runs=lambda plan, store: _training().assignment_runs(plan, store),
    size=lambda plan: table_of(plan.parts).height * plan.seeds,
    select=lambda frame, plan: settings.select(frame, plan, rates.best(rates.published())),
    sections=sections,
)

RATES = Study(
    name="rates",
    question="Which learning rate does each model need on each task of the assignment?",
    parts=PROBLEMS,
    scales=dict.fromkeys(SCALES, "the assignment's search at that scale"),
    seeds=dict.fromkeys(SCALES, 1),
    runs=lambda plan, store: _training().search_runs(plan, store),
    size=lambda plan: sum(len(rates.RATES[d]) for d in table_of(plan.parts, alone=True)["d"]),
    select=lambda frame, plan: rates.newest(
        settings.on_settings(
            frame, table_of(plan.parts, alone=True), SCALES[plan.scale].search_steps
        )
    ),
    sections=lambda frame, plan: [search(rates.trials_of(frame))],
    choose=lambda plan, store: _training().choose_rates(plan, store),
)
