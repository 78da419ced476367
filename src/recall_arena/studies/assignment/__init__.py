"""The assignment: attention against Mamba against hybrids, three problems from one command.

Cost: 28 runs a seed.  `recall study run assignment` says how far it is.
"""

from recall_arena.records import Store
from recall_arena.runs import REVISION
from recall_arena.studies.assignment import problem1, problem2, problem3
from recall_arena.studies.assignment.pictures import rate_search
from recall_arena.studies.assignment.rates import (
    Trial,
    published,
    search_runs,
    trials,
)
from recall_arena.studies.assignment.results import Results, setting_runs
from recall_arena.studies.assignment.settings import PROBLEMS, SCALES, SETTINGS
from recall_arena.studies.assignment.tables import rate_table, summary
from recall_arena.studies.study import NamedRun, Plan, Section, Study, Table

PARTS = {1: problem1.section, 2: problem2.section, 3: problem3.section}


def _runs(plan: Plan, store: Store) -> list[NamedRun]:
    """The longest first, so that the last ones to finish are short."""
    chosen = [setting for setting in SETTINGS if setting.problem in plan.parts]
    if 3 in plan.parts and 2 not in plan.parts:  # Problem 3 compares with Problem 2's Mamba
        chosen += [s for s in SETTINGS if s.problem == 2 and s.model == "mamba"]
    chosen.sort(key=lambda setting: (-setting.width, -setting.problem))
    return [
        NamedRun(f"{setting.key} seed={run.seed}", run)
        for setting in chosen
        for run in setting_runs(setting, plan)
    ]


def _sections(plan: Plan, store: Store) -> list[Section]:
    results = Results.read(plan, store)
    first = Section(
        title="Summary",
        question="Which sequence mixers can recall, how fast do they learn it, and how far "
        "beyond the training length does it carry?",
        setting="Test accuracy at the training length L = 64 on 1,000 sequences a run, every "
        "model at the learning rate that its own search chose. Chance is 1/16 = 6.2 %.",
        tables=(
            Table(
                "summary",
                "Test accuracy at L, and over the lengths from L + 1 to 3L; model by task.",
                summary(results),
            ),
        ),
    )
    return [first, *(PARTS[part](results) for part in plan.parts), rate_section()]


def rate_section() -> Section:
    """The search of learning rates that the studies rely on."""
    found = published()
    return Section(
        title="Learning rates",
        question="Which learning rate does each model need on each task?",
        setting="Four rates or more a model and task, one seed that no reported run uses, judged "
        "on validation sequences of length L alone: the rate that solved the task in the fewest "
        "iterations, else the most accurate one; a run that diverged cannot be chosen, and where "
        "the best stood at the edge of the grid, the grid was extended. A search run had at most "
        f"{_budgets()} "
        "iterations in Problems 1, 2 and 3. AdamW without weight decay, 200 iterations of warm-up, "
        "a constant rate, then linear to zero over the last fifth of the budget; gradients clipped "
        f"at norm 1.{_searched_before(found)}",
        pictures=(rate_search("rates", found),),
        tables=(
            Table(
                "rates",
                "Validation accuracy at L, or the step of solving, by rate.",
                rate_table(found),
            ),
        ),
    )


def _searched_before(found: list[Trial]) -> str:
    """A sentence, if the search ran on other code than the results."""
    revisions = {trial.revision for trial in found}
    if revisions == {REVISION}:
        return ""
    said = " and ".join(str(revision) for revision in sorted(revisions))
    return (
        f" The search ran with revision {said} of the code, the results with revision {REVISION}: "
        "the same definitions, rounded differently."
    )


def _budgets() -> str:
    steps = [f"{steps:,}" for steps in SCALES["quick"].search_steps.values()]
    return f"{', '.join(steps[:-1])} and {steps[-1]}"


def _search_runs(plan: Plan, store: Store) -> list[NamedRun]:
    return [
        NamedRun(f"{run.model.layers} rate={run.schedule.rate:g}", run)
        for run in search_runs(SCALES[plan.scale], plan.parts, store)
    ]


def _search_sections(plan: Plan, store: Store) -> list[Section]:
    found = trials(SCALES[plan.scale], store)
    table = Table("trials", "The search as far as its records go.", rate_table(found))
    return [Section("Learning rates", "Which rate?", "The search itself.", tables=(table,))]


_ABOUT = {scale.name: scale.about for scale in SCALES.values()}
_SEEDS = {scale.name: scale.seeds for scale in SCALES.values()}

ASSIGNMENT = Study(
    name="assignment",
    question="Attention, Mamba or both: who recalls, how fast, and how far does it carry?",
    parts=PROBLEMS,
    scales=_ABOUT,
    seeds=_SEEDS,
    runs=_runs,
    sections=_sections,
)

RATES = Study(
    name="rates",
    question="Which learning rate does each model need on each task of the assignment?",
    parts=PROBLEMS,
    scales=dict.fromkeys(SCALES, "the assignment's search at that scale"),
    seeds=dict.fromkeys(SCALES, 1),
    runs=_search_runs,
    sections=_search_sections,
)
