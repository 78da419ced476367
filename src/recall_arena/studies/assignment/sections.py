"""The assignment's report: what each section asks, says of its settings, and shows."""

from collections.abc import Callable, Mapping, Sequence

import polars as pl

from recall_arena.claims import SETTING, Finding
from recall_arena.outcomes import runs_of
from recall_arena.rules import standards
from recall_arena.studies.assignment import mixed, pictures, prose, rates, tables, why
from recall_arena.studies.assignment.bullets import answers
from recall_arena.studies.assignment.claims import ALL
from recall_arena.studies.assignment.scales import CONTEXT, SCALES, SEARCHED
from recall_arena.studies.assignment.settings import (
    FLOOR,
    MIXED,
    VOCABULARY,
    asked,
    table_of,
    with_beside,
)
from recall_arena.studies.study import Picture, Plan, Section
from recall_arena.wording import NO_RUN, each, numbers, percent, recipe, seeds, values

EARLIER = 5
"""The revision of the edition that "What changed" speaks of."""

SEARCHED_AGAIN = (
    "Its search of learning rates held eight trials that ended as diverged. They were made by a "
    "library that read memory before writing it, and do not diverge when they are repeated; two "
    "of them had been chosen as best. The search was made again: a trial that diverged cannot be "
    "chosen, and a best rate at the edge of the grid extends it."
)

PROBLEMS: dict[int, tuple[str, str, str, Callable[[pl.DataFrame], list[Picture]]]] = {
    1: (
        "Problem 1: the induction head",
        "Which of the six models learn the induction head, how fast, and how far beyond the "
        "training length does it carry? What does a delay of five change?",
        "Learned positions beyond L were never trained; their rows are evaluated as they were "
        "initialised.",
        pictures.problem1,
    ),
    2: (
        "Problem 2: more queries",
        "How do Mamba, the RoPE transformer and the hybrids cope as M, the number of tokens that "
        "may be asked for, grows to the whole vocabulary?",
        "M = K is full associative recall.",
        pictures.problem2,
    ),
    3: (
        "Problem 3: wide embeddings, and a long delay",
        "How does the embedding dimension d change what Mamba can recall? What does a delay of "
        "ten tokens change?",
        "The runs with d = 8 that these are compared with are those of Problem 2.",
        pictures.problem3,
    ),
}


def sections(frame: pl.DataFrame, plan: Plan) -> list[Section]:
    """The report of these rows, whichever of the plan's runs they hold."""
    settings, trials = table_of(plan.parts), rates.published(plan)
    both = settings.join(runs_of(frame).sort("seed"), on=SETTING, maintain_order="left_right")
    beside = pl.lit(value=False) if SCALES[plan.scale].mixed else MIXED
    rows, runs = (own.filter(~beside) for own in (frame, both))
    findings = mixed.decided(both, beside)
    said, left_out = _said(both, findings, plan)
    problems = [_problem(part, rows, runs, findings.alone, said) for part in plan.parts]
    every = Section("Every run", "What did each run find?", tables=(tables.every_run(runs),))
    question = "Each bullet of the assignment, its answer, and where it is shown."
    notes = (NO_RUN,) if runs.is_empty() else left_out
    index = tuple(answer for problem in problems for answer in problem.answers)
    return [
        _summary(runs, settings, said.get("summary", ())),
        Section("Where is my answer?", question, notes, index=index),
        _how_to_read(runs),
        *problems,
        *mixed.section(frame, both, findings, said.get("mixed", ())),
        *why.section(runs.filter(pl.col("problem") == 1), why.measured(), said.get("why", ())),
        search(trials, mixed.trials(frame)),
        *what_changed(runs, trials),
        *([every] if runs.height else []),
    ]


def _said(
    runs: pl.DataFrame, findings: mixed.Findings, plan: Plan
) -> tuple[Mapping[str, Sequence[str]], tuple[str, ...]]:
    """What was written on these runs, and why it is left out; it is about the published ones."""
    entire = plan == Plan("published", tuple(PROBLEMS))
    if not entire or runs.height < sum(asked(own)["seeds"].sum() for own in with_beside(plan)):
        return {}, ()
    try:
        return prose.written(runs, findings), ()
    except prose.DoesNotFollow as not_so:
        return {}, (
            "What was written on the published runs is left out: it says that "
            f"{not_so}, which these runs do not show.",
        )


def _summary(runs: pl.DataFrame, settings: pl.DataFrame, said: Sequence[str]) -> Section:
    return Section(
        "Summary",
        "Which models learnt which task, and how far beyond L does it carry?",
        (NO_RUN,) if runs.is_empty() else tuple(said),
        pictures=(pictures.overview(runs),) if runs.height else (),
        tables=(tables.summary(runs, settings),),
    )


def _how_to_read(runs: pl.DataFrame) -> Section:
    chance = 1 / VOCABULARY
    paragraphs = (
        "K tokens, embedded in d numbers; the first M of them may be asked for; the value stands τ "
        "tokens after the query; L tokens come before the final query in training.",
        f"Chance is 1/{VOCABULARY} = {percent(chance)}. A reader that ignores order (it answers q "
        "if q stands twice in the context, else the most frequent token) gets "
        f"{percent(FLOOR)} at L = {CONTEXT}: no accuracy up to that shows recall.",
        standards(ALL, runs),
    )
    return Section("How to read this", "What do the words and verdicts mean?", paragraphs)


def what_changed(runs: pl.DataFrame, trials: pl.DataFrame) -> list[Section]:
    """What an earlier edition printed, and why this one does not.

    The search and the runs may each be newer than it; empty if neither is, or there are no runs.
    """
    if runs.is_empty():
        return []
    again = not trials.is_empty() and min(trials["revision"]) > EARLIER
    newer = min(runs["revision"]) > EARLIER
    rope = runs.filter((pl.col("model") == "transformer-rope") & (pl.col("M") == 16))
    longer = (
        "Budgets were too short to tell what is slow from what fails: the RoPE transformer at "
        "M = 16, printed with 11 % at L after 30,000 iterations, reaches "
        f"{each(rope, 'at_L')} % within {values(rope, 'budget')}."
    )
    told = (
        SEARCHED_AGAIN if again else "",
        longer if newer and numbers(rope, "at_L") and min(rope["budget"]) > 30_000 else "",
        "Claims counted test sequences where runs are to be counted: three runs against three were "
        "called decided, which they cannot be; tables printed means where figures drew medians.",
    )
    question = f"Why do these numbers differ from the edition before (revision {EARLIER})?"
    return [Section("What changed", question, tuple(filter(None, told)))] if again or newer else []


def _problem(
    part: int,
    frame: pl.DataFrame,
    runs: pl.DataFrame,
    findings: Mapping[str, Finding],
    said: Mapping[str, Sequence[str]],
) -> Section:
    title, question, note, draw = PROBLEMS[part]
    own = runs.filter(pl.col("problem") == part)
    compared = own
    if part == 3:
        compared = runs.filter((pl.col("problem") > 1) & (pl.col("model") == "mamba"))
    drawn = draw(frame.join(compared, on="address", how="semi"))
    drawn = [picture for picture in drawn if picture.drawing.data.height]
    return Section(
        title,
        question,
        (recipe(own), note),
        answers=answers(part, findings, drawn, said),
        tables=(tables.accuracies(f"problem{part}", own), tables.training(f"problem{part}", own)),
    )


def search(trials: pl.DataFrame, beside: pl.DataFrame | None = None) -> Section:
    """The search of learning rates, and that with mixed lengths where it belongs to the report."""

    def in_order(own: pl.DataFrame) -> pl.DataFrame:
        ordered = table_of(PROBLEMS).join(own, on=SETTING, maintain_order="left_right")
        return rates.with_choice(ordered.drop("problem"))

    chosen = in_order(trials)
    tried = trials.group_by(SETTING).agg(pl.col("rate").n_unique())["rate"]
    setting = (
        f"{min(tried)} rates or more a setting, with {seeds(trials, 'rate')} from {SEARCHED} on, "
        "which no reported run has, judged on validation sequences of length L alone: the rate "
        "that solved the task with the most seeds, then in the fewest iterations, else the most "
        "accurate one; one at which a run diverged cannot be chosen. On "
        f"{rates.at_an_edge(trials).height} of {len(tried)} settings the rate chosen is the lowest "
        f"or the highest that was tried. A search run had at most {values(trials, 'budget')} "
        f"iterations and was made with revision {values(trials, 'revision')} of the code."
        if trials.height
        else NO_RUN
    )
    return Section(
        "Learning rates",
        "Which learning rate does each model need on each task?",
        (setting,),
        pictures=(pictures.search(chosen),) if trials.height else (),
        tables=(
            *tables.search(chosen),
            *(
                []
                if beside is None
                else tables.search(in_order(beside), "trials-mixed", "Lengths up to L, ")
            ),
        ),
    )
