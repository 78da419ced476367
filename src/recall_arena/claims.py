"""Claims: a hypothesis, the statistic and the threshold that decide it, and what the runs say.

The unit is the run.  Test sequences are common to all models and seeds, so they are never counted
as if each run had drawn its own, and one seed gives no verdict.  The ways to decide are in
`rules.py`.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import polars as pl

from recall_arena.wording import differing, setting_name

Verdict = Literal["supported", "refuted", "no difference", "undecided"]
SETTING = ("model", "d", "M", "tau")

LEARNT = 0.99
HAS_LEARNT = pl.col("apart_L") >= LEARNT
"""Test accuracy at L, on sequences whose value is not the query, from which a run has learnt."""


@dataclass(frozen=True)
class Ruling:
    """What a rule says of runs: the verdict, the numbers behind it, and their meaning in words."""

    verdict: Verdict
    measured: str
    comment: str


class Rule(ABC):
    """A way to decide, from a table of `frame.runs_of` that has runs of every setting."""

    @property
    @abstractmethod
    def decided_by(self) -> str:
        """Statistic and threshold, for people."""

    @abstractmethod
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
