"""Problem 1: who learns the induction head, how fast, and how far does it carry?"""

from collections.abc import Sequence

from recall_arena.studies.assignment.findings import (
    Hypothesis,
    carries_below,
    carries_beyond,
    compare,
    steps,
)
from recall_arena.studies.assignment.pictures import by_context, by_iterations, plain
from recall_arena.studies.assignment.results import Result, Results
from recall_arena.studies.assignment.tables import details
from recall_arena.studies.study import Finding, Section, Table, Verdict

DELAYS = (1, 5)


def section(results: Results) -> Section:
    """The figures, the table and the findings of Problem 1."""
    by_delay = {delay: results.select(1, delay=delay) for delay in DELAYS}
    one, five = by_delay.values()
    pairs = list(zip(one, five, strict=True))
    return Section(
        title="Problem 1: the induction head",
        question="Which of the six models learn the induction head, how fast, and how far beyond "
        "the training length does it carry? What does a delay of five change?",
        setting="K = 16, d = 8, L = 64, M = 1 (one query), τ = 1 and τ = 5. Six models: two "
        "layers of attention with learned positions, RoPE or no positions; two layers of Mamba; "
        "Hybrid-A (Mamba, attention); Hybrid-B (Mamba, attention, Mamba). L counts the tokens "
        "before the query. Learned positions beyond L were never trained; their rows are "
        "evaluated as they were initialised.",
        pictures=(
            *(
                by_context(
                    f"problem1-context-delay{delay}",
                    [(f"τ = {delay}", plain(rows))],
                    f"Accuracy against context length, delay τ = {delay}:",
                )
                for delay, rows in by_delay.items()
            ),
            by_context(
                "problem1-delay",
                [(a.label, [(a, "τ = 1", False), (b, "τ = 5", True)]) for a, b in pairs],
                "The impact of the delay, a panel a model; solid τ = 1, dashed τ = 5:",
            ),
            by_iterations(
                "problem1-convergence",
                [(f"τ = {delay}", plain(rows)) for delay, rows in by_delay.items()],
                "Convergence: accuracy on one held-out batch of length L against iterations; a "
                "curve ends where its run was solved:",
            ),
        ),
        tables=(Table("problem1", "Problem 1, all that was measured.", details(one + five)),),
        findings=(
            carries_beyond(one, "with delay 1"),
            carries_below(one, "with delay 1"),
            carries_beyond(five, "with delay 5"),
            carries_below(five, "with delay 5"),
            delay_is_harder(pairs),
            *(mamba_converges_faster(rows, delay) for delay, rows in by_delay.items()),
        ),
    )


def delay_is_harder(pairs: Sequence[tuple[Result, Result]]) -> Finding:
    """Whether every model needs more iterations, or ends lower, with the longer delay."""

    def decide() -> tuple[str, Verdict, str]:
        changes = {one.label: _change(one, five) for one, five in pairs}
        easier = [label for label, change in changes.items() if change < 0]
        harder = [label for label, change in changes.items() if change > 0]
        verdict: Verdict = (
            "refuted" if easier else "supported" if len(harder) == len(pairs) else "undecided"
        )
        statistic = "iterations until solved, τ = 1 → τ = 5: " + "; ".join(
            f"{one.label} {steps(one)} → {steps(five)}" for one, five in pairs
        )
        alike = [label for label, change in changes.items() if change == 0]
        comment = (
            f"Harder with delay 5: {', '.join(harder) or 'none'}. "
            f"Easier: {', '.join(easier) or 'none'}."
        )
        if alike:
            comment += f" Not told apart: {', '.join(alike)}."
        return statistic, verdict, comment

    return Hypothesis(
        "What is the impact of a delay of five?",
        "It makes the task harder for every model: more iterations until it is solved, or a lower "
        "accuracy at L where it is not.",
        "a model that is solved in no more iterations with τ = 5, or is unsolved with both "
        "delays and more accurate at L with τ = 5",
    ).judge([result for pair in pairs for result in pair], decide)


def _change(one: Result, five: Result) -> int:
    """1 if the longer delay is harder for this model, -1 if it is not, 0 if one cannot tell."""
    first, second = one.steps_to_solve, five.steps_to_solve
    if first is None and second is None:
        return -compare(five, one)
    if first is None or second is None:
        return 1 if second is None else -1
    return 1 if second > first else -1


def mamba_converges_faster(results: Sequence[Result], delay: int) -> Finding:
    """Whether each model with a Mamba layer is solved before each model without."""

    def decide() -> tuple[str, Verdict, str]:
        never = float("inf")
        order = sorted(results, key=lambda r: r.steps_to_solve or never)
        slowest = max(r.steps_to_solve or never for r in results if r.recurrent)
        fastest = min(r.steps_to_solve or never for r in results if not r.recurrent)
        if slowest == fastest == never:
            verdict: Verdict = "undecided"
        else:
            verdict = "supported" if slowest < fastest else "refuted"
        statistic = "iterations until solved: " + "; ".join(f"{r.label} {steps(r)}" for r in order)
        solved = [r for r in order if r.steps_to_solve is not None]
        comment = f"In order: {', '.join(r.label for r in solved) or 'none was solved'}."
        return statistic, verdict, comment + " Batches of 64, a check every 100 iterations."

    return Hypothesis(
        f"Which models converge faster during training, with delay {delay}?",
        "Every model with a Mamba layer is solved in fewer iterations than every attention-only "
        "model.",
        "an attention-only model solved in no more iterations than one with a Mamba layer",
    ).judge(results, decide)
