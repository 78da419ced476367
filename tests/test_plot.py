"""`recall plot`: any columns of any records, told apart, in files that do not collide."""

import json
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import kept, record

from recall_arena.canvas import write
from recall_arena.cli import main
from recall_arena.cli.plot import file_stem
from recall_arena.frame import frame_of
from recall_arena.looks import looks_of
from recall_arena.outcomes import runs_of
from recall_arena.plots import STYLES, Axes2D, plot, points_of
from recall_arena.records import Store, archive
from recall_arena.zoo import ZOO

MODELS = ("mamba", "hybrid-a")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for model in MODELS:
        for seed in (0, 1):
            Store(tmp_path / "runs").write(kept(seed, model=model))
    return tmp_path / "runs"


def test_each_value_has_a_look_of_its_own_and_named_models_keep_theirs() -> None:
    values = [*ZOO, *(f"mamba(state={n})" for n in range(100))]
    looks = looks_of("model", values)
    assert len({(look.colour, look.marker) for look in looks.values()}) == len(values)
    assert all(looks[name] == ZOO[name] for name in ZOO)
    assert looks["mamba(state=7)"].label == "mamba(state=7)"
    assert looks_of("rate", [0.001, None])[0.001].label == "rate = 0.001"


@given(st.lists(st.text(min_size=1), unique=True, min_size=2))
def test_no_two_names_have_the_same_file(names: list[str]) -> None:
    stems = [file_stem(name) for name in names]
    assert len({stem.lower() for stem in stems}) == len(names)
    assert all(stem and "/" not in stem and len(stem) < 80 for stem in stems)


@pytest.mark.parametrize("suffix", ["svg", "png", "pdf"])
def test_a_figure_is_the_same_bytes_each_time(store: Path, suffix: str) -> None:
    files = [store.parent / f"{name}.{suffix}" for name in ("one", "two")]
    for path in files:
        assert main(["plot", "--out", str(path)]) == 0
    assert files[0].read_bytes() == files[1].read_bytes()
    assert len(files[0].read_bytes()) > 1000


@pytest.mark.parametrize(
    "words",
    [
        ["--x", "iterations", "--style", "seed"],
        ["--x", "iterations", "--y", "loss", "--panels", "model", "--panels", "d"],
        ["--x", "rate", "--y", "validation", "--colour", "task.queries"],
        ["--x", "model", "--y", "parameters", "--colour", "seed"],
        ["--x", "seed", "--y", "steps_99"],
        ["--y", "accuracy_apart", "--colour", "modules"],
    ],
)
def test_any_columns_can_be_drawn(
    words: list[str], store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["plot", *words, "--out", "new/figure.png"])
    if "steps_99" in words:  # which no run reached: still a figure
        assert code == 0
    assert code == 0, capsys.readouterr().err
    assert Path("new/figure.png").stat().st_size > 1000


def points(rows: int, **columns: list[object]) -> pl.DataFrame:
    """A curve of two points for each row, of runs told apart by the columns."""
    runs = pl.DataFrame({"address": [f"a{n}" for n in range(rows)], **columns})
    made = runs.with_columns(ended_by=pl.lit("budget"), K=16, L=64)
    return made.join(pl.DataFrame({"at": [32, 128], "value": [1.0, 0.5]}), how="cross")


def test_colours_styles_and_panels_tell_values_apart() -> None:
    columns = {"model": ["mamba", "mamba", "hybrid-a"] * 2, "seed": [0, 1, 0] * 2}
    shown = points(6, **columns, d=[8] * 3 + [64] * 3)
    figure = plot(shown, Axes2D("context", "accuracy", "model", "seed", ("d",)))
    assert [axis.get_title() for axis in figure.axes] == ["d = 8", "d = 64"]
    for axis in figure.axes:
        lines = [line for line in axis.lines if list(line.get_xdata()) == [32, 128]]
        looks = {(line.get_color(), line.get_linestyle()) for line in lines}
        assert len(looks) == len(lines) == 3
        assert all(list(line.get_ydata()) == [1.0, 0.5] for line in lines)


@pytest.mark.parametrize("count", [STYLES, STYLES + 1])
def test_no_two_line_styles_are_alike_or_there_are_too_many(count: int) -> None:
    shown = points(count, model=["mamba"] * count, seed=[*range(count)])
    axes = Axes2D("context", "accuracy", "model", "seed", ())
    if count > STYLES:
        with pytest.raises(ValueError, match=f"seed has {count} values, and at most {STYLES}"):
            plot(shown, axes)
        return
    (axis,) = plot(shown, axes).axes
    lines = [line for line in axis.lines if list(line.get_xdata()) == [32, 128]]
    looks = {(line.get_linestyle(), str(line.get_markerfacecolor())) for line in lines}
    assert len(looks) == len(lines) == count


def test_folders_and_archives_are_drawn_together_and_a_file_for_each_value(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive(Store(store), store.parent / "all.parquet")
    words = ("plot", "all.parquet", "runs", "--files", "model", "--out", "f.svg", "--json")
    assert main([*words]) == 0
    files = json.loads(capsys.readouterr().out)["files"]
    assert sorted(files) == ["f-hybrid-a.svg", "f-mamba.svg"]
    Path("runs/bad.parquet").write_text("no")
    assert main([*words]) == 1
    assert "bad.parquet is not an archive" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("--x contxt", "did you mean 'context'?"),
        ("--y acuracy", "did you mean 'accuracy'?"),
        ("--x rate --y model", "--y: no number along rate 'model'"),
        ("--colour mamba", "--colour: no column 'mamba'"),
        ("--panels taus", "--panels: no column 'taus'; did you mean 'tau'?"),
        ("--out plot.jpg", "--out must end in one of .svg, .png, .pdf, got plot.jpg"),
        ("--where seed==77", "no such records in runs"),
        ("nowhere", "nowhere is not a folder"),
    ],
)
def test_a_mistake_is_one_message_and_nothing_is_drawn(
    words: str, hint: str, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plot", *words.split()]) == 2
    assert hint in capsys.readouterr().err
    assert [path.name for path in store.parent.iterdir()] == ["runs"]


def test_a_run_that_never_got_there_counts_in_the_median_and_is_not_drawn(tmp_path: Path) -> None:
    records = [
        record("mamba", seed, steps_99=steps, rate=rate)
        for seed, (steps, rate) in enumerate([(500, 0.1), (None, 0.1), (None, 0.1), (900, 0.2)])
    ]
    frame = frame_of(records)
    axes = Axes2D("rate", "steps_99", "model", None, ())
    figure = plot(points_of(runs_of(frame), frame, axes), axes)
    (axis,) = figure.axes
    *_, median = axis.lines
    assert list(median.get_xdata()) == [0.1, 0.2]
    assert list(median.get_ydata()) == [float("inf"), 900.0]
    write(figure, tmp_path / "one.png")


def test_the_points_of_a_curve_are_those_of_the_frame() -> None:
    frame = frame_of([record("mamba", seed, below=0.25 + seed / 4) for seed in (0, 1)])
    points = points_of(runs_of(frame), frame, Axes2D("context", "accuracy", "model", "seed", ()))
    assert points.filter(pl.col("at") == 32)["value"].sort().to_list() == [0.25, 0.5]
