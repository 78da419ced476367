"""What people wrote on the published runs, with its numbers filled in from them.

`prose.txt` beside this file is a template: a part for the summary, each bullet and the
explanation, the first paragraph of a part its short answer.  What it states in words it demands of
the runs first, by `must`, so that no sentence outlives the numbers that it was written from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import polars as pl
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from recall_arena.claims import HAS_LEARNT, Finding
from recall_arena.index import contents_of
from recall_arena.outcomes import FELL_BACK, runs_of
from recall_arena.records import Store
from recall_arena.studies.assignment import mixed, rates, why
from recall_arena.studies.assignment.scales import PROBLEMS
from recall_arena.studies.assignment.settings import FLOOR, MIXED
from recall_arena.studies.study import Plan
from recall_arena.wording import each, middle, numbers, percent
from recall_arena.zoo import look_of

_TEMPLATES = Environment(  # plain text, which the page escapes
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=False,
    undefined=StrictUndefined,
    trim_blocks=True,
)


_TEMPLATES.filters["percent"] = percent
_TEMPLATES.globals |= {"floor": FLOOR, "max": max}


class DoesNotFollow(ValueError):
    """The prose states something that these runs do not show."""


@dataclass(frozen=True)
class Runs:
    """The runs of a setting: rows of `outcomes.runs_of`, at least one."""

    rows: pl.DataFrame

    @property
    def that_learnt(self) -> "Runs":
        """Those that learnt the task; DoesNotFollow if there are none."""
        return self._those(HAS_LEARNT, "learnt the task")

    @property
    def that_did_not(self) -> "Runs":
        """The others; DoesNotFollow if there are none."""
        return self._those(~HAS_LEARNT, "did not learn the task")

    def _those(self, which: pl.Expr, what: str) -> "Runs":
        own = self.rows.filter(which)
        if own.is_empty():
            raise DoesNotFollow(f"runs of {look_of(self.rows['model'][0]).label} {what}")
        return Runs(own)

    @property
    def learnt(self) -> str:
        """How many learnt the task: 20 of 20."""
        return f"{self.rows.filter(HAS_LEARNT).height} of {self.rows.height}"

    @property
    def share(self) -> float:
        """The share that learnt the task."""
        return self.rows.filter(HAS_LEARNT).height / self.rows.height

    @property
    def at_the_end(self) -> tuple[int, int]:
        """In how many the value enters the last layer at the last position, and of how many.

        They are those that learnt the task and were looked into.
        """
        own = self.that_learnt.rows.drop_nulls("entered")
        return own["entered_after"].null_count(), own.height

    @property
    def fell_back(self) -> int:
        """How many had 90 % validation accuracy, and end far below it."""
        return self.rows.filter(FELL_BACK).height

    @property
    def in_decay(self) -> int:
        """How many first had 99 % validation accuracy while the rate fell."""
        return self.rows.filter("in_decay").height

    def under(self, column: str, bound: float) -> "Runs":
        """Those with less of a column; DoesNotFollow if there are none."""
        return self._those(pl.col(column) < bound, f"have less than {bound} of {column}")

    def reach(self, column: str, least: float) -> str:
        """Of those that learnt the task, how many have at least so much of a column: 7 of 17.

        Those count that have a value there.
        """
        own = self.that_learnt.rows.drop_nulls(column)
        return f"{self.number(column, least)} of {own.height}"

    def number(self, column: str, least: float) -> int:
        """Of those that learnt the task, how many have at least so much of a column."""
        return self.that_learnt.rows.filter(pl.col(column) >= least).height

    def middle(self, column: str) -> str:
        """The median, for people."""
        return middle(self.rows, column)

    def value(self, column: str) -> float:
        """The median."""
        return median(numbers(self.rows, column))

    def each(self, column: str) -> str:
        """Every run's value, or the extremes of many, for people."""
        return each(self.rows, column)

    def least(self, column: str) -> float:
        """The smallest value of a run."""
        return numbers(self.rows, column)[0]

    def most(self, column: str) -> float:
        """The largest value of a run."""
        return numbers(self.rows, column)[-1]


@dataclass(frozen=True)
class Evidence:
    """What the template asks of the runs, a table of `outcomes.runs_of`, and of the findings.

    The runs, at L alone and at lengths up to L, also have the columns of `why.measured`, null where
    nothing was; `mixed` has the findings of the latter.
    """

    runs: pl.DataFrame
    findings: Mapping[str, Finding]
    mixed: Mapping[str, Finding] = field(default_factory=dict)

    def of(self, model: str, M: int = 1, tau: int = 1, d: int = 8, *, mixed: bool = False) -> Runs:
        """The runs of a setting; DoesNotFollow if there are none."""
        own = self.runs.filter(MIXED if mixed else ~MIXED, model=model, M=M, tau=tau, d=d)
        if own.is_empty():
            raise DoesNotFollow(f"there are runs of {look_of(model).label}, M = {M}, τ = {tau}")
        return Runs(own)

    def among(self, models: Sequence[str], *taus: int) -> Runs:
        """The runs of several models with one query at L alone, with any of these delays."""
        return Runs(pl.concat([self.of(model, tau=tau).rows for model in models for tau in taus]))

    def verdict(self, question: str, *, mixed: bool = False) -> str:
        """What the runs say to a question that begins so; DoesNotFollow if none or several do."""
        asked = self.mixed if mixed else self.findings
        found = [own for name, own in asked.items() if name.startswith(question)]
        if len(found) != 1:
            raise DoesNotFollow(f"one question begins with “{question}”")
        return found[0].verdict or "no verdict"

    def must(self, holds: bool, what: str) -> str:
        """Nothing, where it holds; DoesNotFollow with what is stated where it does not."""
        if not holds:
            raise DoesNotFollow(what)
        return ""


def written(runs: pl.DataFrame, found: mixed.Findings) -> dict[str, list[str]]:
    """The paragraphs of each part; DoesNotFollow if these runs do not show what they state."""
    runs = runs.join(why.measured(), on="address", how="left")
    evidence = Evidence(runs, {**found.alone, **found.both}, found.mixed)
    text = _TEMPLATES.get_template("prose.txt").render(
        of=evidence.of, among=evidence.among, verdict=evidence.verdict, must=evidence.must
    )
    parts: dict[str, list[str]] = {}
    for part in f"\n{text}".split("\n== ")[1:]:
        name, _, body = part.partition("\n")
        paragraphs = (" ".join(paragraph.split()) for paragraph in body.split("\n\n"))
        parts[name.strip()] = [paragraph for paragraph in paragraphs if paragraph]
    return parts


def of_store(folder: Path) -> dict[str, list[str]]:
    """The same of the published runs among the records in a folder."""
    plan = Plan("published", PROBLEMS)
    frame = contents_of(Store(folder)).frame
    runs = runs_of(rates.select(frame, plan))
    return written(runs, mixed.decided(runs))
