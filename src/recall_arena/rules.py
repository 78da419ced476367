"""Rules: how claims are decided, by runs.

A claim about every run falls with one run that contradicts it, and stands once the exact interval
of the share of runs that agree lies above `MOST`.  Groups are compared by permutation of runs, and
such a test has one p, which `claims.decide` sets beside those of the other tests.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import ClassVar, Literal

import polars as pl

from recall_arena.claims import (
    HAS_LEARNT,
    HAS_LEARNT_MEANS,
    LEVEL,
    SETTING,
    Claim,
    Rule,
    Ruling,
    Verdict,
)
from recall_arena.intervals import difference, exact
from recall_arena.permutation import rank_test, smallest_p, trend_test
from recall_arena.wording import (
    MEASURES,
    NO_RUN,
    SYMBOLS,
    by_setting,
    limit,
    name_of_value,
    numbers,
    seeds,
    spread,
    values,
)

MOST = 0.8
ENOUGH = next(runs for runs in count(1) if exact(runs, runs)[0] > MOST)
"""So many runs of a setting must all agree until their share is known to lie above `MOST`."""

MARGIN = 0.2
"""Shares of runs that learnt are equal if the interval of their difference lies so near zero."""


@dataclass(frozen=True)
class Every(Rule):
    """Every run that `among` selects does what `passes` says: true, false, or null for neither.

    measure               the column that is shown, one of `wording.MEASURES`
    threshold, condition  `passes` and `among` in words
    kinds                 a column that must take more than one value among the runs, if any
    """

    measure: str
    passes: pl.Expr
    threshold: str
    among: pl.Expr
    condition: str
    kinds: str = "address"
    is_test: ClassVar[bool] = False

    @property
    def decided_by(self) -> str:
        return f"{MEASURES[self.measure]} of all {self.condition}: {self.threshold}"

    def rule(self, runs: pl.DataFrame) -> Ruling:
        counted = runs.with_columns(agrees=self.passes, counts=self.among).filter("counts")
        agreeing, against = counted.filter("agrees"), counted.filter(~pl.col("agrees"))
        comment = f"{agreeing.height} of {counted.height} runs agree."
        if out := runs.height - counted.height:
            comment += f" It is about {self.condition}, so {out} of {runs.height} do not count."
        verdict: Verdict = "undecided"
        if against.height:
            verdict = "refuted"
            comment += f" Against it: {by_setting(against, self.measure, runs)}."
        elif counted.is_empty() or counted[self.kinds].n_unique() < 2:
            comment += " Only one kind of model, or none, is among them."
        elif agreeing.height < counted.height:
            comment += " The others neither agree nor contradict."
        elif min(agreeing.group_by(SETTING).len()["len"]) >= ENOUGH:
            verdict = "supported"
        else:
            comment += (
                f" To know that more than {limit(MOST)} of runs do, {ENOUGH} of each setting "
                "must agree, and none contradict."
            )
        measured = f"{MEASURES[self.measure]}: {by_setting(runs, self.measure, runs)}"
        return Ruling(verdict, measured, comment)


def every_run_learns(among: pl.Expr | None = None, condition: str = "runs") -> Every:
    """Every run learns the task, or every one that `among` selects."""
    chosen = pl.lit(value=True) if among is None else among
    return Every("at_L", HAS_LEARNT, HAS_LEARNT_MEANS, chosen, condition)


@dataclass(frozen=True)
class Ahead(Rule):
    """In each pair of groups, the first one's runs have the larger values.

    Supported if all pairs are as claimed, so the largest p of them is that of the claim (an
    intersection-union test, Berger 1982).  Refuted if any is the reverse: the smallest p of
    those that are, times the number of pairs (Bonferroni).

    value      an accuracy; or "steps_99", where never is later than any number, and what comes
               after the smaller budget of a pair counts as never
    what       the groups in words, "the former against the latter"
    pairs      (what the pair is, the runs that should be ahead, those that should be behind)
    among      the runs that count
    condition  `among` in words
    """

    value: Literal["at_L", "below", "apart_below", "beyond", "steps_99"]
    what: str
    pairs: Sequence[tuple[str, pl.Expr, pl.Expr]]
    among: pl.Expr = field(default_factory=lambda: pl.lit(value=True))
    condition: str = "runs"

    @property
    def decided_by(self) -> str:
        how = "ranks, by permutation of runs in each pair of groups"
        which = "; every pair must be as claimed, and one in reverse refutes"
        return (
            f"{MEASURES[self.value]} of all {self.condition}, {self.what}: "
            f"{how}{which if len(self.pairs) > 1 else ''}"
        )

    def rule(self, runs: pl.DataFrame) -> Ruling:
        counted = runs.filter(self.among)
        groups = [(counted.filter(a), counted.filter(b)) for _, a, b in self.pairs]
        measured = f"{MEASURES[self.value]}: {by_setting(counted, self.value, runs)}"
        if any(own.is_empty() for pair in groups for own in pair):
            comment = f"A model has none of the {self.condition}, so there is nothing to compare."
            return Ruling("undecided", measured, comment)
        tests = [rank_test(*_compared(pair, self.value)) for pair in groups]
        reverse = [p for higher, p in tests if higher < 0]
        allowed = [smallest_p(a.height, b.height) for a, b in groups]
        same = self.value == "at_L" and all(equivalent(a, b) for a, b in groups)
        comment = self._comment(tests)
        first, second = (values(own, "budget") for own in groups[0])
        if first != second:
            comment += f" Budgets: {first} against {second} iterations."
        return Ruling(
            "refuted" if reverse else "supported",
            measured,
            comment,
            p=min(1.0, len(tests) * min(reverse)) if reverse else max(p for _, p in tests),
            least=min(max(allowed), len(tests) * min(allowed)),
            otherwise="no difference" if same else "undecided",
        )

    def _comment(self, tests: list[tuple[float, float]]) -> str:
        every = [p for _, p in tests]
        if len(tests) > 1 and min(every) > LEVEL:
            ends = [f"{p:.2g}" for p in (min(every), max(every))]
            span = f"{ends[0]} each" if ends[0] == ends[1] else " to ".join(ends)
            return f"None of the {len(tests)} pairs is told apart (p = {span})."
        by_outcome: dict[str, list[str]] = {}
        for (name, *_), (higher, p) in zip(self.pairs, tests, strict=True):
            outcome = "as claimed" if higher > 0 else "the reverse" if higher < 0 else "equal"
            outcome = outcome if p <= LEVEL else "not told apart"
            by_outcome.setdefault(outcome, []).append(f"{name} (p = {p:.2g})")
        comment = "; ".join(f"{o}: {', '.join(names)}" for o, names in by_outcome.items())
        return f"{comment[0].upper()}{comment[1:]}."


def _compared(groups: Sequence[pl.DataFrame], column: str) -> list[list[float]]:
    """The values of each group; iterations as far as all were given them."""
    found = [numbers(own, column) for own in groups]
    if column.startswith("steps"):
        given = min(min(own["budget"]) for own in groups)
        found = [[value if value <= given else float("inf") for value in own] for own in found]
    return found


def in_each(
    strata: dict[str, pl.Expr], first: pl.Expr, second: pl.Expr, name: str = ""
) -> list[tuple[str, pl.Expr, pl.Expr]]:
    """The pairs of `Ahead` that set the same two groups against each other in every stratum."""
    return [(f"{name}{own}", where & first, where & second) for own, where in strata.items()]


@dataclass(frozen=True)
class Harder(Rule):
    """As a column grows the task is harder: less accurate at L, or later at 99 %.

    over, value  the column that grows, and the one that then falls (at_L) or rises (steps_99)
    """

    over: str
    value: Literal["at_L", "steps_99"] = "at_L"

    @property
    def decided_by(self) -> str:
        return (
            f"{MEASURES[self.value]} of every run: its trend over {SYMBOLS[self.over]} (Jonckheere "
            "and Terpstra), by permutation of runs"
        )

    def rule(self, runs: pl.DataFrame) -> Ruling:
        groups = dict(sorted((key, rows) for (key,), rows in runs.group_by(self.over)))
        found = dict(zip(groups, _compared([*groups.values()], self.value), strict=True))
        levels = [key for key, own in found.items() for _ in own]
        trend, p = trend_test(levels, [value for own in found.values() for value in own])
        first, *rest = groups.values()
        named = {name_of_value(self.over, key): rows for key, rows in groups.items()}
        learnt = ", ".join(
            f"{name}: {rows.filter(HAS_LEARNT).height} of {rows.height}"
            for name, rows in named.items()
        )
        show = "; ".join(f"{name}: {spread(rows, self.value)}" for name, rows in named.items())
        same = all(equivalent(first, rows) for rows in rest)
        claimed = trend > 0 if self.value == "steps_99" else trend < 0
        return Ruling(
            "supported" if claimed else "refuted",
            f"{MEASURES[self.value]}, median (every seed): {show}",
            f"Runs that learnt the task, {learnt}. Trend {trend:+.2f}.",
            p=p,
            least=smallest_p(*(rows.height for rows in groups.values())),
            otherwise="no difference" if same and self.value == "at_L" else "undecided",
        )


def equivalent(first: pl.DataFrame, second: pl.DataFrame) -> bool:
    """Whether the shares of runs that learnt the task are known to be as good as equal."""
    counts = [(rows.filter(HAS_LEARNT).height, rows.height) for rows in (first, second)]
    return all(abs(bound) < MARGIN for bound in difference(*counts))


def standards(claims: Sequence[Claim], runs: pl.DataFrame) -> str:
    """What decides these claims, said once for all of them."""
    if runs.is_empty():
        return NO_RUN
    tests = sum(claim.rule.is_test for claim in claims)
    return (
        f"A setting has {seeds(runs, 'repeats')}. A run either finds the mechanism or does not, so "
        "the run is the unit, and the statistic is the median over runs, beside every run's value. "
        f"It counts as having learnt the task with {HAS_LEARNT_MEANS}; otherwise all that is known "
        "is that it had not by its end. One contrary run refutes a claim about all. A comparison "
        f"is a test by permutation, and counts if its p is at most {LEVEL:g} when adjusted for "
        f"their number among these claims, {tests} (Holm 1979). Shares of runs that learnt are "
        f"equal if the 95 % interval of their difference lies within {limit(MARGIN)}."
    )
