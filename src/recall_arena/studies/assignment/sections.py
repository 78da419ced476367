"""The assignment's report: what each section asks, says of its settings, and shows."""

from collections.abc import Callable

import polars as pl

from recall_arena.claims import LEARNT, LEVEL, SETTING, Finding, decide
from recall_arena.floor import order_free
from recall_arena.rules import MARGIN
from recall_arena.studies.assignment import pictures, rates, tables
from recall_arena.studies.assignment.claims import ALL, CLAIMS, judged
from recall_arena.studies.assignment.settings import CONTEXT, VOCABULARY, table_of
from recall_arena.studies.study import Picture, Plan, Section
from recall_arena.wording import each, percent, recipe, values

QUESTION = (
    "Which sequence mixers can recall, how fast do they learn it, and how far beyond the training "
    "length does it carry?"
)
EARLIER = 5
"""The revision of the edition that "What changed" speaks of."""

PROBLEMS: dict[int, tuple[str, str, str, Callable[[pl.DataFrame], list[Picture]]]] = {
    1: (
        "Problem 1: the induction head",
        "Which of the six models learn the induction head, how fast, and how far beyond the "
        "training length does it carry? What does a delay of five change?",
        "K = 16, d = 8, L = 64, M = 1 (one query), τ = 1 and τ = 5. Six models: two layers of "
        "attention with learned positions, RoPE or no positions; two layers of Mamba; Hybrid-A "
        "(Mamba, attention); Hybrid-B (Mamba, attention, Mamba). L counts the tokens before the "
        "query. Learned positions beyond L were never trained; their rows are evaluated as they "
        "were initialised.",
        pictures.problem1,
    ),
    2: (
        "Problem 2: more queries",
        "How do Mamba, the RoPE transformer and the hybrids cope as M, the number of tokens that "
        "may be asked for, grows to the whole vocabulary?",
        "K = 16, d = 8, L = 64, τ = 1, M = 4, 8 and 16; M = 16 is full associative recall.",
        pictures.problem2,
    ),
    3: (
        "Problem 3: wide embeddings, and a long delay",
        "How does the embedding dimension d change what Mamba can recall? What does a delay of "
        "ten tokens change?",
        "K = 16, d = 64, L = 64, Mamba only; τ = 1 with M = 4, 8 and 16, and τ = 10 with M = 16. "
        "The runs with d = 8 are those of Problem 2.",
        pictures.problem3,
    ),
}


def sections(frame: pl.DataFrame, plan: Plan) -> list[Section]:
    """The report of these rows, whichever of the plan's runs they hold."""
    settings = table_of(plan.parts)
    runs = settings.join(judged(frame), on=SETTING, maintain_order="left_right")
    findings = decide(ALL, runs, table_of(PROBLEMS))
    changed = runs.height and min(runs["revision"]) > EARLIER
    return [
        _summary(runs, settings),
        *([what_changed(runs)] if changed else []),
        *(_problem(part, frame, runs, findings) for part in plan.parts),
        search(rates.published()),
        Section("Every run", "What did each run find?", tables=(tables.every_run(runs),)),
    ]


def _summary(runs: pl.DataFrame, settings: pl.DataFrame) -> Section:
    chance, floor = 1 / VOCABULARY, order_free(VOCABULARY, CONTEXT)[-1]
    setting = (
        f"Chance is 1/{VOCABULARY} = {percent(chance)}. A reader that ignores order (it answers q "
        "if q stands twice in the context, else the most frequent token) gets "
        f"{percent(floor)} at L = {CONTEXT}: no accuracy up to that shows recall. {limits(runs)}"
    )
    return Section("Summary", QUESTION, setting, tables=(tables.summary(runs, settings),))


def limits(runs: pl.DataFrame) -> str:
    """What so many seeds can decide, said once for all claims."""
    if runs.is_empty():
        return "No run is finished."
    tests = sum(claim.rule.is_test for claim in ALL)
    return (
        f"A setting has {values(runs.group_by(SETTING).len(), 'len')} runs (seeds). A run either "
        "finds the mechanism or does not, so the run is the unit, and the statistic is the median "
        f"over runs, beside every run's value. It has learnt the task with at least "
        f"{percent(LEARNT)} at L where the value is not the query; if not, then not within its "
        "budget. A claim about all runs falls with one. A comparison is a test, and counts if its "
        f"p is at most {percent(LEVEL)} when adjusted for the {tests} tests among the claims (Holm "
        "1979). Shares of runs that learnt are equal if the 95 % interval of their difference "
        f"lies within {percent(MARGIN)}."
    )


def what_changed(runs: pl.DataFrame) -> Section:
    """What an earlier edition of this report printed, and why it no longer does."""
    budgets = [
        f"Problem {problem} has {now} iterations (before: {before})"
        for problem, before in ((2, "30,000"), (3, "10,000"))
        for now in [values(runs.filter(pl.col("problem") == problem), "budget")]
        if now not in ("", before)
    ]
    rope = runs.filter((pl.col("model") == "transformer-rope") & (pl.col("M") == 16))
    longer = (
        "Budgets were too short to tell what is slow from what fails: "
        f"{', '.join(budgets)}. The RoPE transformer at M = 16, printed with 11 % at L, reaches "
        f"{each(rope, 'at_L')} % here. "
        if budgets and rope.height
        else ""
    )
    return Section(
        "What changed",
        f"Why do these numbers differ from those of the edition before (revision {EARLIER})?",
        "Its search of learning rates held eight trials that ended as diverged. They were made by "
        "a library that read memory before writing it, and do not diverge when they are repeated; "
        "two of them had been chosen as best. The search was made again: a trial that diverged "
        f"cannot be chosen, and a best rate at the edge of the grid extends it. {longer}"
        "And claims counted test sequences where runs are to be counted: three runs against three "
        "were called decided, which they cannot be; tables printed means where figures drew "
        "medians.",
    )


def _problem(
    part: int, frame: pl.DataFrame, runs: pl.DataFrame, findings: dict[str, Finding]
) -> Section:
    title, question, setting, draw = PROBLEMS[part]
    own = runs.filter(pl.col("problem") == part)
    compared = own
    if part == 3:
        compared = runs.filter((pl.col("problem") == 3) | (pl.col("model") == "mamba"))
        compared = compared.filter(pl.col("problem") > 1)
    drawn = draw(frame.join(compared, on="address", how="semi"))
    return Section(
        title,
        question,
        f"{setting} {recipe(own)}",
        pictures=tuple(one for one in drawn if one.drawing.data.height),
        tables=(tables.details(f"problem{part}", own),),
        findings=tuple(findings[claim.question] for claim in CLAIMS[part]),
    )


def search(trials: pl.DataFrame) -> Section:
    """The search of learning rates."""
    ordered = table_of(PROBLEMS).join(trials, on=SETTING, maintain_order="left_right")
    chosen = rates.with_choice(ordered.drop("problem"))
    setting = (
        "Four rates or more a model and task, one seed that no reported run uses, judged on "
        "validation sequences of length L alone: the rate that solved the task in the fewest "
        "iterations, else the most accurate one; a run that diverged cannot be chosen. On "
        f"{rates.at_an_edge(trials).height} of {trials.n_unique(SETTING)} settings the rate chosen "
        "is the lowest or the highest that was tried. A search run had at most "
        f"{values(trials, 'budget')} iterations and was made with revision "
        f"{values(trials, 'revision')} of the code."
    )
    return Section(
        "Learning rates",
        "Which learning rate does each model need on each task?",
        setting if trials.height else "No run is finished.",
        pictures=(pictures.search(chosen),) if trials.height else (),
        tables=(tables.search(chosen),),
    )
