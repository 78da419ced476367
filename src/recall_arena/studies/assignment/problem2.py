"""Problem 2: what happens as more queries are asked for, with eight numbers an embedding?"""

from collections.abc import Sequence

from recall_arena.studies.assignment.findings import (
    Hypothesis,
    carries_beyond,
    compare,
    falls_with_queries,
    name_of,
)
from recall_arena.studies.assignment.pictures import by_context, by_iterations, by_query, plain
from recall_arena.studies.assignment.results import Result, Results, percent
from recall_arena.studies.assignment.tables import details
from recall_arena.studies.study import Finding, Section, Table, Verdict

QUERIES = (4, 8, 16)
MODELS = ("transformer-rope", "mamba", "hybrid-a", "hybrid-b")


def section(results: Results) -> Section:
    """The figures, the table and the findings of Problem 2."""
    every = results.select(2)
    by_model = {model: results.select(2, model=model) for model in MODELS}
    panels = [(f"M = {queries}", plain(results.select(2, queries=queries))) for queries in QUERIES]
    rope, mamba = by_model["transformer-rope"], by_model["mamba"]
    hybrids = {model: by_model[model] for model in ("hybrid-a", "hybrid-b")}
    return Section(
        title="Problem 2: more queries",
        question="How do Mamba, the RoPE transformer and the hybrids cope as M, the number of "
        "tokens that may be asked for, grows to the whole vocabulary?",
        setting="K = 16, d = 8, L = 64, τ = 1, M = 4, 8 and 16; M = 16 is full associative recall.",
        pictures=(
            by_context("problem2-context", panels, "Accuracy against context length, by M:"),
            by_iterations(
                "problem2-convergence",
                panels,
                "Convergence: accuracy on one held-out batch of length L against iterations, by M:",
            ),
            by_query("problem2-queries", every, columns=len(MODELS)),
        ),
        tables=(Table("problem2", "Problem 2, all that was measured.", details(every)),),
        findings=(
            falls_with_queries(mamba),
            learns_one_at_a_time(mamba),
            falls_with_queries(rope),
            attention_recalls_better(rope, mamba),
            *(falls_with_queries(rows) for rows in hybrids.values()),
            hybrids_keep_up(hybrids, rope, mamba),
            carries_beyond(every, "with more queries"),
        ),
    )


def attention_recalls_better(rope: Sequence[Result], mamba: Sequence[Result]) -> Finding:
    """Whether attention is the more accurate of the two at every M."""

    def decide() -> tuple[str, Verdict, str]:
        trends = [compare(a, m) for a, m in zip(rope, mamba, strict=True)]
        verdict: Verdict = (
            "refuted" if -1 in trends else "supported" if 0 not in trends else "undecided"
        )
        statistic = "accuracy at L, RoPE transformer against Mamba: " + "; ".join(
            f"M = {a.setting.queries}: {percent(a.at_training_length)} against "
            f"{percent(m.at_training_length)}"
            for a, m in zip(rope, mamba, strict=True)
        )
        words = {1: "attention ahead", 0: "not told apart", -1: "Mamba ahead"}
        comment = "; ".join(
            f"M = {a.setting.queries}: {words[t]}" for a, t in zip(rope, trends, strict=True)
        )
        return statistic, verdict, f"{comment}."

    return Hypothesis(
        "How does the transformer compare with Mamba?",
        "At every M the RoPE transformer is more accurate at L than Mamba of the same width: it "
        "looks the value up, where Mamba must keep all of them in its state.",
        "an M at which Mamba's accuracy at L lies above the transformer's, beyond both intervals",
    ).judge([*rope, *mamba], decide)


def hybrids_keep_up(
    hybrids: dict[str, list[Result]], rope: Sequence[Result], mamba: Sequence[Result]
) -> Finding:
    """Whether each hybrid is at least as accurate as the better of its two parents."""
    rows = [result for results in hybrids.values() for result in results]

    def decide() -> tuple[str, Verdict, str]:
        below, shown = [], []
        for results in hybrids.values():
            for hybrid, *parents in zip(results, rope, mamba, strict=True):
                better = max(parents, key=lambda r: r.at_training_length)
                shown.append(
                    f"{name_of(hybrid)} {percent(hybrid.at_training_length)} against "
                    f"{percent(better.at_training_length)} ({better.label})"
                )
                if compare(hybrid, better) < 0:
                    below.append(name_of(hybrid))
        comment = f"Below the better parent: {', '.join(below)}." if below else "None is below."
        verdict: Verdict = "refuted" if below else "supported"
        return "accuracy at L: " + "; ".join(shown), verdict, comment

    return Hypothesis(
        "Do hybrids improve on both?",
        "At every M each hybrid is at least as accurate at L as the better of Mamba and the RoPE "
        "transformer.",
        "a hybrid whose accuracy at L lies below the better parent's, beyond both intervals",
    ).judge([*rows, *rope, *mamba], decide)


def learns_one_at_a_time(mamba: Sequence[Result]) -> Finding:
    """Whether, on the way up, each query is either known or not, rather than all half known."""

    def decide() -> tuple[str, Verdict, str]:
        shares = [share for result in mamba for share in _told_apart(result)]
        if not shares:
            return "no check lay on the way up", "undecided", "Mamba never was on the way up."
        mean = sum(shares) / len(shares)
        verdict: Verdict = "supported" if mean >= 0.75 else "refuted" if mean < 0.5 else "undecided"
        statistic = (
            f"over {len(shares):,} checks with 20 to 90 % of all answers right, {percent(mean)} "
            "of the queries were answered right at least 80 % or at most 30 % of the time"
        )
        return statistic, verdict, "The figure by query shows the steps of the staircase."

    return Hypothesis(
        "Does Mamba learn all queries together?",
        "No, one at a time: on the way up, most queries are either known or not.",
        "fewer than half of the queries being either known (at least 80 %) or unknown (at most 30 "
        "%) "
        "while 20 to 90 % of all answers are right",
    ).judge(mamba, decide)


def _told_apart(result: Result) -> list[float]:
    """For each check on the way up: the share of queries that are known or unknown."""
    shares = []
    for tally in result.checks:
        rows = zip(tally.accuracy(), tally.correct_by_query, tally.total_by_query, strict=True)
        for accuracy, correct, total in rows:
            if 0.2 <= accuracy <= 0.9:
                known = [right / n for right, n in zip(correct, total, strict=True) if n]
                shares.append(sum(s >= 0.8 or s <= 0.3 for s in known) / len(known))
    return shares
