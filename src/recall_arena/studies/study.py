"""What a study is: a question, the runs that answer it, what is drawn and found from them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import polars as pl
from matplotlib.figure import Figure

from recall_arena.records import Store
from recall_arena.runs import Run

Verdict = Literal["supported", "refuted", "undecided"]


@dataclass(frozen=True)
class Plan:
    """Which part of a study is asked for, at which scale, with how many seeds."""

    scale: str
    parts: tuple[int, ...]
    seeds: int


@dataclass(frozen=True)
class NamedRun:
    """A run and what people call it."""

    name: str
    run: Run


@dataclass(frozen=True)
class Picture:
    """A figure, what it shows, and the numbers behind it; `name` is the stem of its files."""

    name: str
    caption: str
    figure: Figure
    data: pl.DataFrame


@dataclass(frozen=True)
class Table:
    """Rows for people; `name` is the stem of its CSV file."""

    name: str
    caption: str
    rows: pl.DataFrame


@dataclass(frozen=True)
class Finding:
    """A hypothesis, written before the runs, and what their records say of it.

    statistic  the numbers that decide it
    comment    the same in plain English, with what limits it
    """

    question: str
    hypothesis: str
    refuted_by: str
    statistic: str
    verdict: Verdict
    comment: str


@dataclass(frozen=True)
class Section:
    """A part of a report."""

    title: str
    question: str
    setting: str
    pictures: tuple[Picture, ...] = ()
    tables: tuple[Table, ...] = ()
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Study:
    """A study by name.

    runs      the runs of a plan, the longest first; a search adds some once the store has others
    sections  the report's sections, from whatever records the store has
    scales    name -> what it costs and gives
    seeds     how many seeds each scale has unless the user says otherwise
    """

    name: str
    question: str
    parts: tuple[int, ...]
    scales: dict[str, str]
    seeds: dict[str, int]
    runs: Callable[[Plan, Store], list[NamedRun]]
    sections: Callable[[Plan, Store], list[Section]]
