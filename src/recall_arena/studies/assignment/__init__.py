"""The assignment: attention against Mamba against hybrids, three problems from one command.

Cost: 28 runs a seed.  `recall study run assignment` says how far it is.
"""

from types import ModuleType

from recall_arena.records import Store
from recall_arena.studies.assignment import rates, settings
from recall_arena.studies.assignment.playable import playable
from recall_arena.studies.assignment.scales import PROBLEMS, SCALES
from recall_arena.studies.assignment.sections import search, sections
from recall_arena.studies.assignment.settings import with_beside
from recall_arena.studies.study import Plan, Study


def _training() -> ModuleType:
    from recall_arena.studies.assignment import runs  # needs torch, as all the rest does not

    return runs


def _explain(plan: Plan, store: Store) -> tuple[int, int]:
    from recall_arena.studies.assignment import insides  # as above

    return insides.explain(plan, store)


ASSIGNMENT = Study(
    name="assignment",
    question="Attention, Mamba or both: who recalls, how fast, and how far does it carry?",
    parts=PROBLEMS,
    scales={name: scale.about for name, scale in SCALES.items()},
    runs=lambda plan, _: [
        run for own in with_beside(plan) for run in _training().assignment_runs(own)
    ],
    size=lambda plan: sum(int(settings.asked(own)["seeds"].sum()) for own in with_beside(plan)),
    select=rates.select,
    sections=sections,
    explain=_explain,
    playable=playable,
)

RATES = Study(
    name="rates",
    question="Which learning rate does each model need on each task of the assignment?",
    parts=PROBLEMS,
    scales=dict.fromkeys(SCALES, "the assignment's search at that scale"),
    runs=lambda plan, store: _training().search_runs(plan, store),
    size=lambda plan: sum(
        len(SCALES[plan.scale].problems[problem].rates[d]) * seeds
        for problem, d, seeds in settings.searched(plan).select("problem", "d", "seeds").rows()
    ),
    select=lambda frame, plan: rates.newest(settings.on_settings(frame, settings.searched(plan))),
    sections=lambda frame, plan: [search(rates.trials_of(frame))],
    choose=lambda plan, store: _training().choose_rates(plan, store),
)
