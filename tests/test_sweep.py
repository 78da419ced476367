"""`recall sweep`: a grid over any fields, gone on with, and what is chosen from it."""

import json
import re
from pathlib import Path

import polars as pl
import pytest

from recall_arena.choosing import chosen, points
from recall_arena.cli import main
from recall_arena.cli.command import Mistake
from recall_arena.cli.grid import at_point, points_of
from recall_arena.cli.sweep import Sweep
from recall_arena.model import named
from recall_arena.records import Store

TINY = (
    *("--schedule.steps", "4", "--schedule.context", "8", "--checks.sequences", "8"),
    *("--contexts", "4,8", "--contexts.sequences", "8", "--quiet", "--jobs", "1"),
)


def trials(*rows: tuple[float, int, str, int | None, float]) -> pl.DataFrame:
    names = ("rate", "seed", "ended_by", "solved_at", "validation")
    table = pl.DataFrame(rows, schema=names, orient="row")
    return table.with_columns(address=pl.int_range(pl.len()).cast(pl.String), accuracy=0.5)


def best_of(*rows: tuple[float, int, str, int | None, float], seeds: int = 1) -> pl.DataFrame:
    return chosen(points(trials(*rows), ["rate"], seeds), ["rate"], [])


# What is chosen


def test_the_one_that_is_solved_first_is_chosen_and_else_the_most_accurate() -> None:
    slow, fast = (0.1, 0, "solved", 900, 1.0), (0.2, 0, "solved", 500, 0.999)
    good, bad = (0.3, 0, "budget", None, 0.99), (0.4, 0, "budget", None, 0.5)
    assert best_of(slow, fast, good, bad)["rate"].to_list() == [0.2]
    assert best_of(bad, good)["rate"].to_list() == [0.3]


def test_a_point_one_of_whose_seeds_diverged_or_is_missing_is_never_chosen() -> None:
    diverged = [(0.1, 0, "solved", 10, 1.0), (0.1, 1, "diverged", None, 1.0)]
    alone = (0.2, 0, "solved", 20, 1.0)
    poor = [(0.3, seed, "budget", None, 0.1) for seed in (0, 1)]
    assert best_of(*diverged, alone, *poor, seeds=2)["rate"].to_list() == [0.3]
    assert best_of(*diverged, alone, seeds=2).height == 0


def test_over_seeds_the_median_counts_and_most_must_be_solved() -> None:
    once = [(0.1, seed, "budget", None, 0.5) for seed in (0, 1)] + [(0.1, 2, "solved", 10, 1.0)]
    twice = [(0.2, s, "solved", 900, 1.0) for s in (0, 1)] + [(0.2, 2, "budget", None, 0.1)]
    assert best_of(*once, *twice, seeds=3)["rate"].to_list() == [0.2]
    assert best_of(*once, *twice, seeds=3)["solved_at"].to_list() == [900.0]


def test_a_choice_at_the_edge_says_so() -> None:
    rows = [(rate, 0, "solved", steps, 1.0) for rate, steps in ((0.1, 9), (0.2, 5), (0.3, 7))]
    assert best_of(*rows)["edge"].to_list() == [[]]
    assert best_of(*rows[1:])["edge"].to_list() == [["rate"]]
    assert best_of(rows[0])["edge"].to_list() == [[]]  # there is no grid to have an edge


# What a grid says


def test_a_field_is_called_in_full_or_by_its_last_word() -> None:
    found = points_of(Sweep(), ["rate=1e-3,3e-3", "task.queries=1,4", "seed=0"])
    assert found[1] == {"schedule.rate": 1e-3, "task.queries": 4, "seed": 0}
    assert len(found) == 4
    run = at_point(Sweep(), {"schedule.curriculum.kind": "linear", "width": 16}).planned()
    assert (run.schedule.curriculum.kind, run.model.width) == ("linear", 16)


def test_models_with_commas_are_told_apart_by_bars() -> None:
    found = points_of(Sweep(), ["model=mamba(state=2), attention|hybrid-a"])
    assert [point["model"] for point in found] == ["mamba(state=2), attention", "hybrid-a"]


def test_options_of_mixers_and_settings_of_the_model_are_fields_too() -> None:
    words = ["--grid", "model=mamba|gated-delta, mamba", "--grid", "state=2,4"]
    described = Sweep.spelled(words)()
    assert isinstance(described, Sweep)
    found = points_of(described, ["model=mamba|gated-delta, mamba", "state=2,4", "norm=rms"])
    assert found[-1] == {"model": "gated-delta, mamba", "mamba.state": 4, "model.norm": "rms"}
    spec = at_point(described, found[-1]).planned().model
    assert spec == named("gated-delta, mamba(state=4); norm=rms")
    with pytest.raises(Mistake, match=r"expand may be mamba.expand or gated-delta.expand"):
        points_of(described, ["expand=1,2"])
    assert points_of(described, ["decay=0.1"]) == [{"schedule.decay": 0.1}], (
        "a run's own come first"
    )
    assert points_of(described, ["gated_delta.key-width=4"]) == [{"gated-delta.key_width": 4}]


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("", "--grid says what varies, such as --grid rate=1e-3,3e-3"),
        ("--grid rat=1", "no field of a run 'rat'; did you mean 'rate'?"),
        ("--grid rate", "--grid must be a field and its values"),
        ("--grid rate=1,,2", "--grid must be a field and its values"),
        ("--grid rate=1 --grid schedule.rate=2", "--grid names schedule.rate twice"),
        ("--grid sequences=1,2", "sequences may be checks.sequences or contexts.sequences"),
        ("--grid rate=-1,1", "rate must be positive, got -1"),
        ("--grid seed=[1]|[2]", "seed must be a whole number, got '[1]'"),
        ("--grid seed=a,b", "seed must be a whole number, got 'a'"),
        ("--grid model=mambo,mamba", "did you mean 'mamba'?"),
        ("--grid context=1,8", "--schedule.context must be at least 2 with this task, got 1"),
        ("--grid mamba.state=0,1", "mamba: state must be at least 1, got 0"),
        ("--grid attention.heads=1,2", "no field of a run 'attention.heads'"),
        (
            "--model mamba --grid model=mamba|attention --grid state=1,2",
            "mamba.state is given, and the model has no mamba",
        ),
        ("--grid norm=layer,batch", "norm: should be 'layer' or 'rms', got 'batch'"),
        ("--grid seed=0,1 --per rate", "no field of the grid 'rate'"),
        ("--grid seed=0 --write best.txt", "--write must be a file NAME.json, got best.txt"),
        ("--grid seed=0 --write runs/best.json", "would be read as a record"),
        ("--grid seed=0 --write other/0123456789abcdef.json", "would be read as a record"),
        ("--grid seed=0 --jobs 0", "--jobs must be at least 1, got 0"),
    ],
)
def test_a_mistake_is_found_before_anything_is_trained(
    words: str,
    hint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", *words.split()]) == 2
    assert hint in re.sub(r"\s+", " ", capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []


# The command


def test_a_sweep_trains_chooses_writes_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["sweep", "--grid", "rate=1e-3,1e-2", "--grid", "seed=0,1", "--width", "4", *TINY]
    assert main([*words, "--dry-run", "--json"]) == 0
    assert [row["state"] for row in json.loads(capsys.readouterr().out)] == ["to do"] * 4
    assert not Path("runs").exists()

    assert main([*words, "--write", "out/best.json"]) == 0
    said = capsys.readouterr().out
    assert "schedule.rate stands at the edge of the grid" in said
    (choice,) = json.loads(Path("out/best.json").read_text())
    assert choice["chosen"]["schedule.rate"] in (1e-3, 1e-2)
    assert choice["at_the_edge"] == ["schedule.rate"]
    assert choice["runs"] == 2
    assert len(Store(tmp_path / "runs").addresses()) == 4

    before = {path: path.stat().st_mtime_ns for path in Path("runs").glob("*.json")}
    more = [word.replace("1e-3,1e-2", "1e-3,1e-2,1e-1") for word in words]
    assert main([*more, "--json"]) == 0
    assert len(Store(tmp_path / "runs").addresses()) == 6
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_run_that_diverges_is_shown_and_not_chosen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--grid", "rate=1e30,1e-3", "--schedule.warmup", "0", "--store", str(tmp_path))
    assert main(["sweep", *words, *TINY]) == 0
    said = capsys.readouterr().out
    assert "diverged" in said
    assert "best is schedule.rate=0.001" in said


def test_a_sweep_has_the_flags_of_its_task(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["sweep", "--task", "mqar", "--help"])
    assert "--task.pairs" in capsys.readouterr().out
