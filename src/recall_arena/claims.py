"""Claims: a hypothesis, the statistic and the threshold that decide it, and what the runs say.

The unit is the run.  Test sequences are common to all models and seeds, so they are never counted
as if each run had drawn its own.  A claim about every run falls with one run that contradicts it,
and stands once the exact interval of the share of runs that agree lies above `MOST`.  Groups are
compared by permutation of runs.  One seed gives no verdict, and few seeds leave a comparison
undecided whatever they find: the smallest p that they allow is then said.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Literal, Protocol

import polars as pl

from recall_arena.intervals import difference, exact
from recall_arena.permutation import rank_test, smallest_p, trend_test
from recall_arena.wording import by_setting, differing, numbers, percent, setting_name, spread

Verdict = Literal["supported", "refuted", "no difference", "undecided"]
SETTING = ("model", "d", "M", "tau")

LEARNT = 0.99
HAS_LEARNT = pl.col("apart_L") >= LEARNT
"""Test accuracy at L, on sequences whose value is not the query, from which a run has learnt."""

MOST = 0.8
ENOUGH = next(runs for runs in count(1) if exact(runs, runs)[0] > MOST)
"""So many runs of a setting must all agree until their share is known to lie above `MOST`."""

MARGIN = 0.2
"""Shares of runs that learnt are equal if the interval of their difference lies so near zero."""


@dataclass(frozen=True)
class Ruling:
    """What a rule says of runs: the verdict, the numbers behind it, and their meaning in words."""

    verdict: Verdict
    measured: str
    comment: str


class Rule(Protocol):
    """A way to decide, from a table of `frame.runs_of` that has runs of every setting."""

    @property
    def decided_by(self) -> str:
        """Statistic and threshold, for people."""

    def rule(self, runs: pl.DataFrame, level: float) -> Ruling:
        """Verdict, numbers and words together; `level` is the largest p that counts."""


@dataclass(frozen=True)
class Claim:
    """A question, the hypothesis that answers it, the settings it is about, the rule that decides.

    The hypothesis is written before the runs that judge it.
    """

    question: str
    hypothesis: str
    about: pl.Expr
    rule: Rule


@dataclass(frozen=True)
class Finding:
    """A claim and what the runs say; `verdict` is None if they are too few to say anything."""

    question: str
    hypothesis: str
    decided_by: str
    verdict: Verdict | None
    measured: str
    comment: str


def decide(claim: Claim, runs: pl.DataFrame, settings: pl.DataFrame, level: float) -> Finding:
    """What a table of `frame.runs_of` says of a claim.

    `settings` lists model, d, M and tau of all that is asked about, with runs or without, in the
    order in which they are named.
    """
    asked = settings.filter(claim.about).select(SETTING)
    own = asked.join(runs.drop_nulls("at_L"), on=SETTING, how="left", maintain_order="left")
    own = own.filter(pl.col("address").is_not_null())
    missing = asked.join(own, on=SETTING, how="anti", maintain_order="left").to_dicts()
    fields = (claim.question, claim.hypothesis, claim.rule.decided_by)
    if missing:
        names = ", ".join(setting_name(row, differing(asked)) for row in missing)
        return Finding(*fields, None, "not all runs are finished", f"Missing: {names}.")
    ruling = claim.rule.rule(own, level)
    if min(own.group_by(SETTING).len()["len"]) == 1:
        comment = "One seed of a setting is an observation and decides nothing."
        return Finding(*fields, None, ruling.measured, comment)
    return Finding(*fields, ruling.verdict, ruling.measured, ruling.comment)


@dataclass(frozen=True)
class Every:
    """Every run that `among` selects does what `passes` says: true, false, or null for neither.

    measure, measured     the column that is shown, and what it is
    threshold, condition  `passes` and `among` in words
    kinds                 a column that must take more than one value among the runs, if any
    """

    measure: str
    measured: str
    passes: pl.Expr
    threshold: str
    among: pl.Expr
    condition: str
    kinds: str = "address"

    @property
    def decided_by(self) -> str:
        return f"{self.measured} of all {self.condition}: {self.threshold}"

    def rule(self, runs: pl.DataFrame, level: float) -> Ruling:
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
                f" To know that more than {percent(MOST)} of runs do, {ENOUGH} of each setting "
                "must agree, and none contradict."
            )
        return Ruling(verdict, f"{self.measured}: {by_setting(runs, self.measure, runs)}", comment)


@dataclass(frozen=True)
class Ahead:
    """In each pair of groups, the first one's runs have the larger values.

    value  "at_L", the accuracy; or "steps_99", where never is later than any number: the groups
           of a pair must have had equal budgets
    pairs  (what the pair is, the runs that should be ahead, those that should be behind)
    """

    value: Literal["at_L", "steps_99"]
    measured: str
    pairs: Sequence[tuple[str, pl.Expr, pl.Expr]]

    @property
    def decided_by(self) -> str:
        return f"{self.measured} of every run: ranks, by permutation of runs in each pair of groups"

    def rule(self, runs: pl.DataFrame, level: float) -> Ruling:
        groups = [(name, runs.filter(a), runs.filter(b)) for name, a, b in self.pairs]
        level /= len(groups)
        found: dict[str, list[str]] = {}
        for name, first, second in groups:
            outcome, p = self._compare(first, second, level)
            found.setdefault(outcome, []).append(f"{name} (p = {p:.2g})")
        outcomes = set(found)
        comment = "; ".join(f"{o}: {', '.join(names)}" for o, names in found.items())
        comment = f"{comment[0].upper()}{comment[1:]}."
        verdict: Verdict = "undecided"
        if "the reverse" in outcomes:
            verdict = "refuted"
        elif outcomes == {"as claimed"}:
            verdict = "supported"
        elif outcomes == {"no difference"}:
            verdict = "no difference"
        else:
            least = max(smallest_p(a.height, b.height) for _, a, b in groups)
            comment += f" {power(least, level)}"
        show = "; ".join(
            f"{name}: {spread(first, self.value)} against {spread(second, self.value)}"
            for name, first, second in groups
        )
        return Ruling(verdict, f"{self.measured}, median (every seed): {show}", comment)

    def _compare(
        self, first: pl.DataFrame, second: pl.DataFrame, level: float
    ) -> tuple[str, float]:
        higher, p = rank_test(numbers(first, self.value), numbers(second, self.value))
        if p <= level:
            return ("as claimed" if higher > 0 else "the reverse"), p
        same = self.value == "at_L" and equivalent(first, second)
        return ("no difference" if same else "not told apart"), p


def in_each(
    strata: dict[str, pl.Expr], first: pl.Expr, second: pl.Expr, name: str = ""
) -> list[tuple[str, pl.Expr, pl.Expr]]:
    """The pairs of `Ahead` that set the same two groups against each other in every stratum."""
    return [(f"{name}{own}", where & first, where & second) for own, where in strata.items()]


@dataclass(frozen=True)
class Falls:
    """The test accuracy at L falls as a column grows."""

    over: str

    @property
    def decided_by(self) -> str:
        return (
            f"test accuracy at L of every run: its trend over {self.over} (Jonckheere and "
            "Terpstra), by permutation of runs"
        )

    def rule(self, runs: pl.DataFrame, level: float) -> Ruling:
        groups = dict(sorted((key, rows) for (key,), rows in runs.group_by(self.over)))
        trend, p = trend_test(runs[self.over].to_list(), runs["at_L"].to_list())
        first, *rest = groups.values()
        learnt = ", ".join(
            f"{self.over} = {key}: {rows.filter(HAS_LEARNT).height} of {rows.height}"
            for key, rows in groups.items()
        )
        comment = f"Runs that learnt the task, {learnt}. Trend {trend:+.2f}, p = {p:.2g}."
        verdict: Verdict = "undecided"
        if p <= level:
            verdict = "supported" if trend < 0 else "refuted"
        elif all(equivalent(first, rows) for rows in rest):
            verdict = "no difference"
        else:
            comment += f" {power(smallest_p(*(rows.height for rows in groups.values())), level)}"
        show = "; ".join(f"{self.over} = {k}: {spread(r, 'at_L')}" for k, r in groups.items())
        return Ruling(verdict, f"test accuracy at L, median (every seed): {show}", comment)


def equivalent(first: pl.DataFrame, second: pl.DataFrame) -> bool:
    """Whether the shares of runs that learnt the task are known to be as good as equal."""
    counts = [(rows.filter(HAS_LEARNT).height, rows.height) for rows in (first, second)]
    return all(abs(bound) < MARGIN for bound in difference(*counts))


def power(least: float, level: float) -> str:
    """What so few runs could have shown, in a sentence."""
    can = "cannot decide it" if least > level else "could have decided it"
    return f"So many seeds {can}: they allow p = {least:.2g}, and at most {level:.2g} counts."
