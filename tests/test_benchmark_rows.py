"""Measurements are rows by machine and commit, and the pages quote what the rows say."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from cogapp import Cog
from conftest import ROOT

from benchmarks import machine, numbers, rows
from benchmarks.lookup import Lookup
from benchmarks.numbers import FLOOR, OURS
from benchmarks.rows import Kept, LeftOut, Origin, Row
from benchmarks.tables import page, tables

pytestmark = pytest.mark.whole

PAGES = ["README.md", "benchmarks/README.md", "docs/reliability.md"]
HERE = Origin("abacus", "0123456", "2026-11-25T12:00Z", "compiled, avx2", "python 3.11.7")
LEFT_OUT = LeftOut("step", "mamba", {"d": 8}, 1, "JAX", "disagrees")


def row(contender: str, **changes: object) -> Row:
    times = (3, 1234.5, 1000.4, 2000.0, 1.0, 1.0)
    made = Row("step", "mamba", "step", {"d": 8}, 1, contender, *times, {})
    return replace(made, **changes)


# What is kept


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    given = [row(OURS, figures={"compile s": 0.5}), LEFT_OUT]
    rows.add(tmp_path / "all.jsonl", HERE, given)

    assert rows.read(tmp_path / "all.jsonl") == [Kept(HERE, each) for each in given]
    assert len((tmp_path / "all.jsonl").read_text().splitlines()) == 2
    assert rows.read(tmp_path / "none.jsonl") == []


OTHER_MACHINE, OTHER_COMMIT = replace(HERE, machine="slide rule"), replace(HERE, commit="89abcde")
LATER = replace(HERE, date="2026-11-26T12:00Z")


@pytest.mark.parametrize(
    ("origin", "again", "left"),
    [
        (LATER, row("a"), ["a"]),
        (LATER, row("b"), ["b"]),  # a setting is measured as a whole
        (LATER, row("a", shape={"d": 64}), ["a", "a"]),
        (LATER, row("a", threads=2), ["a", "a"]),
        (OTHER_MACHINE, row("a"), ["a", "a"]),
        (OTHER_COMMIT, row("a"), ["a", "a"]),
    ],
)
def test_only_the_same_setting_of_the_same_machine_and_commit_is_replaced(
    origin: Origin, again: Row, left: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "all.jsonl"
    rows.add(path, HERE, [row("a")])
    rows.add(path, origin, [again])
    kept = rows.read(path)

    assert [each.row.contender for each in kept] == left
    assert kept[-1] == Kept(origin, again)


def test_the_commit_is_that_of_the_checkout() -> None:
    assert re.fullmatch(r"[0-9a-f]{7,}(-dirty)?|no git checkout", machine.commit())


# What is told


def test_a_table_has_one_line_a_row_and_bounds_stand_apart() -> None:
    given = [row(OURS), row("JAX", figures={"compile s": 0.1234}), row(FLOOR, rounds=0), LEFT_OUT]
    head, _, ours, jax, blank, *bounds = tables(given)

    assert head.endswith("| times ours | compile s |")
    assert ours == "| mamba, step | d 8 | recall-arena | 3 | 1234 | 1000-2000 | 1.00 |  |"
    assert jax.endswith("| 0.123 |")
    assert blank == ""
    assert FLOOR in bounds[2]
    assert bounds[4] == "* mamba, d 8: JAX left out, disagrees"
    assert tables([]) == []


def test_a_table_tells_of_a_busy_machine() -> None:
    told = tables([row(OURS), row("JAX", cores=0.25)])
    assert "* 1 of 2 measurements had less than 0.9 of a core, down to 0.25" in told[-2]


def test_the_published_page_is_made_of_the_published_rows() -> None:
    kept = rows.read(ROOT / "results" / "benchmarks.jsonl")
    assert (ROOT / "results" / "benchmarks.md").read_text() == page(kept)
    assert page(kept).count("\n| ") > len(kept) / 2


# What pages quote


@pytest.mark.parametrize("name", PAGES)
def test_filling_in_the_numbers_leaves_the_page_unchanged(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    done = Cog().main(["cog", "--check", "-I", ".", name])
    assert done == 0, f"{name} does not say what the rows say: make numbers\n{capsys.readouterr()}"


def test_a_number_comes_from_the_newest_run_that_has_all_contenders() -> None:
    found = Lookup(
        [
            Kept(HERE, row(OURS, median_ms=1.0)),
            Kept(HERE, row("JAX, unroll 4", median_ms=2.0)),
            Kept(LATER, row(OURS, median_ms=3.0)),
        ]
    )
    which = ("step", "mamba", "step", {"d": 8})
    assert [each.median_ms for each in found.together(*which, OURS, "JAX")] == [1.0, 2.0]
    assert [each.median_ms for each in found.together(*which, OURS)] == [3.0]
    with pytest.raises(LookupError, match="no run has step, mamba"):
        found.together(*which, OURS, "mambapy")


def test_whoever_is_faster_than_ours_is_told() -> None:
    shape = {"batch": 64, "L": 64, "d": 8}
    slower, faster = (row("JAX", shape=shape, ratio=ratio) for ratio in (1.5, 0.5))
    assert numbers.behind(Lookup([Kept(HERE, faster)])).endswith(
        "JAX takes 0.50 times as long as ours"
    )
    assert numbers.behind(Lookup([Kept(HERE, faster), Kept(LATER, slower)])) == "* none"
