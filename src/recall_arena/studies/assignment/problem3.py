"""Problem 3: what do wide embeddings change for Mamba, and what does a delay of ten?"""

from collections.abc import Sequence

from recall_arena.studies.assignment.findings import Hypothesis, compare, falls_with_queries, steps
from recall_arena.studies.assignment.pictures import Panel, by_context, by_iterations, by_query
from recall_arena.studies.assignment.results import Result, Results, percent
from recall_arena.studies.assignment.tables import details
from recall_arena.studies.study import Finding, Section, Table, Verdict


def section(results: Results) -> Section:
    """The figures, the table and the findings of Problem 3."""
    wide = results.select(3, delay=1)
    narrow = results.select(2, model="mamba")
    (late,) = results.select(3, queries=16, delay=10)
    panels: list[Panel] = [
        (f"M = {w.setting.queries}", [(n, "d = 8", True), (w, "d = 64", False)])
        for n, w in zip(narrow, wide, strict=True)
    ]
    delays: list[Panel] = [("M = 16, d = 64", [(wide[-1], "τ = 1", False), (late, "τ = 10", True)])]
    return Section(
        title="Problem 3: wide embeddings, and a long delay",
        question="How does the embedding dimension d change what Mamba can recall? What does a "
        "delay of ten tokens change?",
        setting="K = 16, d = 64, L = 64, Mamba only; τ = 1 with M = 4, 8 and 16, and τ = 10 with M "
        "= 16. "
        "The runs with d = 8 are those of Problem 2.",
        pictures=(
            by_context(
                "problem3-width",
                panels,
                "Mamba's accuracy against context length; solid d = 64, dashed d = 8:",
            ),
            by_iterations(
                "problem3-convergence",
                panels,
                "Mamba's convergence on one held-out batch of length L; solid d = 64, dashed d = "
                "8:",
            ),
            by_context("problem3-delay", delays, "Mamba, M = 16: solid τ = 1, dashed τ = 10:"),
            by_iterations(
                "problem3-delay-convergence",
                delays,
                "Convergence, M = 16: solid τ = 1, dashed τ = 10:",
            ),
            by_query("problem3-queries", [*wide, late], columns=4),
        ),
        tables=(Table("problem3", "Problem 3, all that was measured.", details([*wide, late])),),
        findings=(
            falls_with_queries(wide),
            width_helps(narrow, wide),
            long_delay_is_out_of_reach(wide[-1], late),
        ),
    )


def width_helps(narrow: Sequence[Result], wide: Sequence[Result]) -> Finding:
    """Whether the wide model is the more accurate one at every M."""

    def decide() -> tuple[str, Verdict, str]:
        trends = [compare(w, n) for n, w in zip(narrow, wide, strict=True)]
        verdict: Verdict = (
            "refuted" if -1 in trends else "supported" if 0 not in trends else "undecided"
        )
        statistic = "accuracy at L, d = 8 → d = 64: " + "; ".join(
            f"M = {n.setting.queries}: {percent(n.at_training_length)} → "
            f"{percent(w.at_training_length)}"
            for n, w in zip(narrow, wide, strict=True)
        )
        comment = (
            f"The wide model had {wide[0].budget:,} iterations at most, the narrow one "
            f"{narrow[0].budget:,}; the wide one keeps {wide[0].records[0].cost.state_size:,} "
            f"numbers of state, the narrow one {narrow[0].records[0].cost.state_size:,}."
        )
        return statistic, verdict, comment

    return Hypothesis(
        "How does the embedding dimension impact Mamba's results?",
        "d = 64 makes Mamba more accurate at L than d = 8 at every M: it has eight times the "
        "state.",
        "an M at which the accuracy with d = 64 lies below that with d = 8, beyond both intervals",
    ).judge([*narrow, *wide], decide)


def long_delay_is_out_of_reach(near: Result, late: Result) -> Finding:
    """Whether the delay that the convolutions cannot bridge costs accuracy."""

    def decide() -> tuple[str, Verdict, str]:
        trend = compare(late, near)
        verdict: Verdict = {-1: "supported", 0: "undecided", 1: "refuted"}[trend]  # type: ignore[assignment]
        if trend == 0 and late.all_solved and near.all_solved:
            slower = (late.steps_to_solve or 0) > (near.steps_to_solve or 0)
            verdict = "supported" if slower else "refuted"
        statistic = (
            f"accuracy at L, τ = 1 → τ = 10: {percent(near.at_training_length)} → "
            f"{percent(late.at_training_length)}; iterations until solved: {steps(near)} → "
            f"{steps(late)}"
        )
        words = {-1: "less accurate", 0: "not told apart", 1: "more accurate"}
        return (
            statistic,
            verdict,
            f"With τ = 10 Mamba is {words[trend]} at L after the same budget.",
        )

    return Hypothesis(
        "Does a delay of ten change anything for Mamba (M = 16, d = 64)?",
        "Yes, it is harder: the short convolutions of two layers reach back six tokens "
        "together, so the scan itself must carry the query over the gap.",
        "an accuracy at L with τ = 10 above that with τ = 1, or both solved and τ = 10 no later",
    ).judge([near, late], decide)
