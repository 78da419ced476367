"""What a study is: a question, the runs that answer it, the claims, what is drawn of the runs."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from recall_arena.claims import Finding
from recall_arena.figures import Drawing
from recall_arena.records import Store


@dataclass(frozen=True)
class Plan:
    """Which part of a study is asked for, at which scale.

    `seeds` is how many each setting gets, or None for those that the scale gives it.
    """

    scale: str
    parts: tuple[int, ...]
    seeds: int | None = None


@dataclass(frozen=True)
class NamedRun:
    """A `recall_arena.runs.Run`, and what people call it; naming its type here would need torch."""

    name: str
    run: Any


@dataclass(frozen=True)
class Picture:
    """A figure; `name` is the stem of its files."""

    name: str
    drawing: Drawing


@dataclass(frozen=True)
class Table:
    """Rows for people; `name` is the stem of its CSV file."""

    name: str
    caption: str
    rows: pl.DataFrame


@dataclass(frozen=True)
class Answer:
    """What was asked, word for word, and what the runs say to it.

    name      its anchor in the page
    title     its heading
    short     its sentence in the list of all answers; empty if nobody wrote one
    said      paragraphs that somebody wrote from the evidence
    pictures  those that show it
    see       names of pictures that show it and stand with an answer before
    findings  claims about it, and what the runs say of each
    """

    name: str
    title: str
    asked: str
    short: str
    said: tuple[str, ...]
    pictures: tuple[Picture, ...]
    see: tuple[str, ...]
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Section:
    """A part of a report; the paragraphs of `setting` say how its runs were made.

    `index` points to answers, of other sections.
    """

    title: str
    question: str
    setting: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()
    tables: tuple[Table, ...] = ()
    findings: tuple[Finding, ...] = ()
    answers: tuple[Answer, ...] = ()
    index: tuple[Answer, ...] = ()

    @property
    def drawn(self) -> tuple[Picture, ...]:
        """All pictures that stand in it."""
        return self.pictures + tuple(p for answer in self.answers for p in answer.pictures)


@dataclass(frozen=True)
class Playable:
    """A model that readers may try in the page: that of the first of these runs, by address,
    whose weights were kept."""

    name: str
    colour: str
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class Study:
    """A study by name.  All but `runs` and `choose` work without torch.

    scales    name -> what it costs and gives
    runs      the runs of a plan, the longest first; a search adds some once the store has others
    size      how many runs a plan has, for all that is known without them
    select    the rows of a frame that belong to a plan, of whatever revision they are
    sections  the report's sections, from those rows
    choose    writes down what later studies take from a finished search, and says where;
              ValueError if runs are missing
    explain   looks into the finished runs whose weights a store keeps and writes down what the
              report says of it; how many runs that were, and how many had no weights
    playable  the models that the page runs, from the rows of a whole store
    """

    name: str
    question: str
    parts: tuple[int, ...]
    scales: dict[str, str]
    runs: Callable[[Plan, Store], list[NamedRun]]
    size: Callable[[Plan], int]
    select: Callable[[pl.DataFrame, Plan], pl.DataFrame]
    sections: Callable[[pl.DataFrame, Plan], list[Section]]
    choose: Callable[[Plan, Store], Path] | None = None
    explain: Callable[[Plan, Store], tuple[int, int]] | None = None
    playable: Callable[[pl.DataFrame], list[Playable]] | None = None
