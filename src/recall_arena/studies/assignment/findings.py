"""How the assignment's questions are decided: hypotheses, the statistics they rest on, verdicts.

Every sentence about a result is written by these functions from the records.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from recall_arena.studies.assignment.results import Result, complete, percent
from recall_arena.studies.assignment.settings import CONTEXT
from recall_arena.studies.study import Finding, Verdict

LEARNT = 0.99
"""The accuracy at the training length from which a model counts as having learnt the task."""

CARRIES = 0.9
"""The accuracy over other lengths from which what was learnt counts as carrying to them."""


@dataclass(frozen=True)
class Hypothesis:
    """A question of the assignment, an answer proposed before the runs, what would refute it."""

    question: str
    hypothesis: str
    refuted_by: str

    def judge(
        self, results: Sequence[Result], decide: Callable[[], tuple[str, Verdict, str]]
    ) -> Finding:
        """The finding, or "undecided" while a setting has no finished run."""
        fields = (self.question, self.hypothesis, self.refuted_by)
        if not complete(results):
            lacking = [result.setting.key for result in results if not result]
            return Finding(
                *fields, "not all runs are finished", "undecided", f"Missing: {', '.join(lacking)}."
            )
        statistic, verdict, comment = decide()
        limits = [comment, _limit_of_budget(results), _limit_of_seeds(results)]
        return Finding(*fields, statistic, verdict, " ".join(filter(None, limits)))


def carries_beyond(results: Sequence[Result], where: str) -> Finding:
    """Whether just the models with a Mamba layer stay accurate beyond the training length."""

    def decide() -> tuple[str, Verdict, str]:
        learnt = [result for result in results if result.at_training_length >= LEARNT]
        carry = [result for result in learnt if result.beyond >= CARRIES]
        drop = [result for result in learnt if result.beyond < CARRIES]
        against = [r for r in carry if not r.recurrent] + [r for r in drop if r.recurrent]
        kinds = {result.recurrent for result in learnt}
        verdict: Verdict = "refuted" if against else "supported" if len(kinds) == 2 else "undecided"
        comment = _sentence("Carrying beyond L", carry, lambda r: r.beyond)
        comment += " " + _sentence("Falling off", drop, lambda r: r.beyond)
        if len(learnt) < len(results):
            rest = [result for result in results if result not in learnt]
            comment += " " + _sentence(
                f"Not counted, for not having learnt the task at L ({percent(LEARNT)})",
                rest,
                lambda r: r.at_training_length,
            )
        if len(kinds) < 2 and not against:
            comment += " Only one of the two kinds of model learnt the task, so nothing is decided."
        return _listing(results, lambda r: r.beyond, "accuracy from L + 1 to 3L"), verdict, comment

    return Hypothesis(
        f"Which models keep their accuracy beyond the training length, {where}?",
        "Only models with a Mamba layer do (Gu & Dao 2023, Table 2).",
        f"an attention-only model that learnt the task and has at least {percent(CARRIES)} over "
        "the lengths from L + 1 to 3L, or a model with a Mamba layer that learnt it and has less",
    ).judge(results, decide)


def carries_below(results: Sequence[Result], where: str) -> Finding:
    """Whether what is learnt at L also works at the shorter lengths."""

    def decide() -> tuple[str, Verdict, str]:
        learnt = [result for result in results if result.at_training_length >= LEARNT]
        drop = [result for result in learnt if result.shorter < CARRIES]
        verdict: Verdict = "refuted" if drop else "supported" if learnt else "undecided"
        comment = _sentence("Below the bar at shorter contexts", drop, lambda r: r.shorter)
        fine = [result for result in learnt if result not in drop]
        comment += " " + _sentence("At ease there", fine, lambda r: r.shorter)
        return _listing(results, lambda r: r.shorter, "accuracy below L"), verdict, comment

    return Hypothesis(
        f"Does what is learnt at L work at shorter contexts, {where}?",
        "Yes: fewer tokens hold fewer distractors.",
        f"a model that learnt the task at L and has less than {percent(CARRIES)} over the shorter "
        "lengths",
    ).judge(results, decide)


def falls_with_queries(results: Sequence[Result]) -> Finding:
    """Whether a model's accuracy at L falls as more queries are asked for."""
    label, width = results[0].label, results[0].setting.width

    def decide() -> tuple[str, Verdict, str]:
        fewest, most = results[0], results[-1]
        trend = compare(most, fewest)
        verdict: Verdict = {-1: "supported", 0: "undecided", 1: "refuted"}[trend]  # type: ignore[assignment]
        if trend == 0 and most.at_training_length >= LEARNT:
            verdict = "refuted"
        learnt = [r for r in results if r.at_training_length >= LEARNT]
        known = ", ".join(f"M = {r.setting.queries}" for r in learnt) or "no M"
        comment = f"{label} reached {percent(LEARNT)} at L for {known}."
        by_queries = ", ".join(
            f"M = {r.setting.queries}: {percent(r.at_training_length)} {_interval(r)}"
            for r in results
        )
        return f"accuracy at L: {by_queries}", verdict, comment

    return Hypothesis(
        f"How does {label} (d = {width}) cope with more queries?",
        f"The more queries, the lower its accuracy at L = {CONTEXT} after the same budget.",
        "an accuracy at the largest M that is not below that at the smallest",
    ).judge(results, decide)


def compare(left: Result, right: Result) -> int:
    """-1 or 1 if the left's interval at L lies wholly below or above the right's, else 0."""
    (low, high), (other_low, other_high) = left.interval, right.interval
    return -1 if high < other_low else 1 if low > other_high else 0


def steps(result: Result) -> str:
    """The iterations to the solved rule, for people."""
    solved = result.steps_to_solve
    return f"not within {result.budget:,}" if solved is None else f"{solved:,.0f}"


def _listing(results: Sequence[Result], value: Callable[[Result], float], what: str) -> str:
    rows = [f"{name_of(r)} {percent(value(r))}" for r in sorted(results, key=value, reverse=True)]
    return f"{what}: " + "; ".join(rows)


def _sentence(start: str, results: Sequence[Result], value: Callable[[Result], float]) -> str:
    names = [f"{name_of(result)} ({percent(value(result))})" for result in results]
    return f"{start}: {', '.join(names) or 'none'}."


def name_of(result: Result) -> str:
    """The model, with M where more than one query is asked for."""
    queries = result.setting.queries
    return result.label if queries == 1 else f"{result.label} with M = {queries}"


def _interval(result: Result) -> str:
    low, high = result.interval
    return f"[{100 * low:.1f}, {100 * high:.1f}]"


def _limit_of_budget(results: Sequence[Result]) -> str:
    short = [result for result in results if not result.all_solved]
    if not short:
        return ""
    names = ", ".join(dict.fromkeys(name_of(result) for result in short))
    most = max(result.budget for result in short)
    return (
        f"Not solved within the budget (at most {most:,} iterations): {names}; "
        "whether more iterations would do is not decided here."
    )


def _limit_of_seeds(results: Sequence[Result]) -> str:
    fewest = min(len(result.records) for result in results)
    return "One seed a model: an observation, not yet evidence." if fewest == 1 else ""
