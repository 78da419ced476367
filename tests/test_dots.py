"""The figure of every run."""

import re
from pathlib import Path

import polars as pl
from made_up import record

from recall_arena.canvas import write
from recall_arena.dots import Panel, by_setting
from recall_arena.frame import frame_of
from recall_arena.outcomes import runs_of
from recall_arena.report.inline import THEME
from recall_arena.wording import NO_RUN


def runs() -> pl.DataFrame:
    seeds = range(5)
    return runs_of(
        frame_of(
            record(model, seed, M=M, at_L=0.2 + seed / 10 + M / 40, beyond=0.1 + seed / 10)
            for M in (1, 4)
            for model in ("mamba", "hybrid-a")
            for seed in seeds
        )
    )


def test_every_run_is_a_dot_and_a_bar_stands_at_their_median() -> None:
    own = runs()
    drawing = by_setting([Panel("at", own, "at_L"), Panel("beyond", own, "beyond")], "All")
    for axis, measure in zip(drawing.figure.axes, ("at_L", "beyond"), strict=True):
        dots = [line.get_xdata() for line in axis.lines if line.get_marker() == "o"]
        bars = [line.get_xdata() for line in axis.lines if line.get_marker() == "|"]
        assert sorted(x for line in dots for x in line) == sorted(own[measure])
        medians = own.group_by("model", "M").agg(pl.col(measure).median())[measure]
        assert sorted(float(x) for line in bars for x in line) == sorted(medians)


def test_rows_are_tasks_and_under_each_its_models() -> None:
    drawing = by_setting([Panel("at", runs(), "at_L", 0.2)], "All")
    names = [label.get_text() for label in drawing.figure.axes[0].get_yticklabels()]
    assert names == ["M = 1", "Mamba", "Hybrid-A", "M = 4", "Mamba", "Hybrid-A"]


def test_its_numbers_are_those_that_it_draws_and_it_says_how_many() -> None:
    own = runs()
    drawing = by_setting([Panel("a", own, "at_L"), Panel("b", own.head(0), "at_L")], "All")
    assert sorted(drawing.data["accuracy"]) == sorted(own["at_L"])
    assert "5 seeds a setting" in drawing.caption
    assert by_setting([Panel("a", own.head(0), "at_L")], "All").caption == NO_RUN


def test_its_blacks_and_greys_follow_the_readers_setting(tmp_path: Path) -> None:
    own = runs()
    drawing = by_setting([Panel("at", own, "at_L", 0.2, marked=own.head(1))], "All")
    write(drawing.figure, tmp_path / "dots.svg")
    text = (tmp_path / "dots.svg").read_text()
    greys = {found[0] for found in re.finditer(r"#([0-9a-f]{2})\1\1\b", text)}
    assert "#000000" in greys
    assert greys <= set(THEME)
