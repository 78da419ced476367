"""Claims: a hypothesis, the statistic and the threshold that decide it, and what the runs say.

The unit is the run.  Test sequences are common to all models and seeds, so they are never counted
as if each run had drawn its own, and one seed gives no verdict.  The ways to decide are in
`rules.py`.

The tests among the claims are judged together: their p, adjusted by Holm's method, is at most
`LEVEL`, so that with a probability of 95 % none of them is decided by chance.  A claim about every
run is no test.  A run that contradicts it refutes it, which needs no p; its support, and "no
difference", is an interval of 95 % of its own, which nothing adjusts.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import polars as pl

from recall_arena.permutation import holm
from recall_arena.wording import NO_RUN, differing, limit, setting_name

Verdict = Literal["supported", "refuted", "no difference", "undecided"]
SETTING = ("model", "d", "M", "tau")

LEVEL = 0.05
"""The largest adjusted p that decides a test."""

LEARNT = 0.99
HAS_LEARNT = pl.col("apart_L") >= LEARNT
"""Test accuracy at L, on sequences whose value is not the query, from which a run has learnt."""

HAS_LEARNT_MEANS = f"at least {limit(LEARNT)} at L where the value is not the query"


@dataclass(frozen=True)
class Ruling:
    """What a rule says of runs.

    verdict            what it says, or None; of a test only if its p counts
    measured, comment  the numbers behind it, and their meaning in words
    p, least           of a test: its two-sided p, and the smallest that so many runs allow
    otherwise          what a test says if its p does not count
    """

    verdict: Verdict | None
    measured: str
    comment: str
    p: float = 1.0
    least: float = 1.0
    otherwise: Verdict = "undecided"


class Rule(ABC):
    """A way to decide, from a table of `outcomes.runs_of` that has runs of every setting."""

    is_test: ClassVar[bool] = True
    """Whether a p decides."""

    @property
    @abstractmethod
    def decided_by(self) -> str:
        """Statistic and threshold, for people."""

    @abstractmethod
    def rule(self, runs: pl.DataFrame) -> Ruling:
        """Verdict, numbers and words together."""


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


def decide(
    claims: Sequence[Claim], runs: pl.DataFrame, settings: pl.DataFrame
) -> dict[str, Finding]:
    """What a table of `outcomes.runs_of` says of all claims of a report, by their questions.

    `settings` lists model, d, M and tau of all that the claims are about, with runs or without, in
    the order in which they are named.  A test whose runs are too few counts as one with p = 1, so
    a report of some of the runs is never quicker to decide than the whole.
    """
    rulings = {claim.question: _ruling(claim, runs, settings) for claim in claims}
    tests = {claim.question: rulings[claim.question].p for claim in claims if claim.rule.is_test}
    return {claim.question: _finding(claim, rulings[claim.question], tests) for claim in claims}


def _ruling(claim: Claim, runs: pl.DataFrame, settings: pl.DataFrame) -> Ruling:
    asked = settings.filter(claim.about).select(SETTING)
    own = asked.join(runs.drop_nulls("at_L"), on=SETTING, how="left", maintain_order="left")
    own = own.filter(pl.col("address").is_not_null())
    missing = asked.join(own, on=SETTING, how="anti", maintain_order="left").to_dicts()
    if missing:
        names = ", ".join(setting_name(row, differing(asked)) for row in missing)
        comment = NO_RUN if own.is_empty() else f"Missing: {names}."
        return Ruling(None, "not all runs are finished", comment)
    ruling = claim.rule.rule(own)
    if min(own.group_by(SETTING).len()["len"]) == 1:
        comment = "One seed of a setting is an observation and decides nothing."
        return Ruling(None, ruling.measured, comment)
    return ruling


def _finding(claim: Claim, ruling: Ruling, tests: Mapping[str, float]) -> Finding:
    """The ruling on a claim, where `tests` has the p of every test by its claim's question."""
    question, verdict, comment = claim.question, ruling.verdict, ruling.comment
    if question in tests and verdict is not None:
        p, least = (holm({**tests, question: own})[question] for own in (ruling.p, ruling.least))
        verdict = verdict if p <= LEVEL else ruling.otherwise
        comment += f" The claim's p is {ruling.p:.2g}, adjusted {p:.2g}."
        if verdict == "undecided":
            few = ", so that these seeds cannot decide it" if least > LEVEL else ""
            comment += f" The smallest that so many seeds could give is {least:.2g}{few}."
    return Finding(
        question, claim.hypothesis, claim.rule.decided_by, verdict, ruling.measured, comment
    )
