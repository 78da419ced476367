"""Commands on a store: a bad thing hides nothing, nothing is removed or written over unasked."""

import io
import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import small_study
from made_up import kept

from recall_arena.cli import main
from recall_arena.records import Store, archive, weights_path
from recall_arena.studies import STUDIES, NamedRun

RECORDS = sorted((kept(seed) for seed in range(3)), key=lambda record: record.address)
GOOD, BAD, THIRD = (record.address for record in RECORDS)
SMALL = ("--schedule.steps", "20", "--contexts.stride", "95", "--quiet")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Three records, one of them damaged, a folder, a pipe and a file that is none of ours."""
    folder = tmp_path / "runs"
    for record in RECORDS:
        Store(folder).write(record)
    damaged = folder / f"{BAD}.json"
    damaged.write_bytes(damaged.read_bytes().replace(b'"correct":[1', b'"correct":[2'))
    (folder / "0123456789abcdef.json").mkdir()
    (folder / "package.json").write_text("{}")
    (folder / "bad.parquet").write_text("no")
    return folder


NAMED = (f"{BAD}.json", "0123456789abcdef.json", "package.json", "bad.parquet")


def everything(folder: Path) -> dict[str, bytes | None]:
    """All files below a folder with what is in them."""
    found = folder.rglob("*")
    return {str(path): None if path.is_dir() else path.read_bytes() for path in found}


@pytest.mark.parametrize("words", ["ls", "ls --json", "export all.csv", "archive all.parquet"])
def test_what_is_sound_is_shown_what_is_not_is_named_and_the_code_is_1(
    words: str,
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    before = everything(store)
    assert main(["runs", *words.split(), "--store", str(store)]) == 1
    said = capsys.readouterr()

    assert everything(store) == before
    assert all(said.err.count(f"/{name} ") == 1 for name in NAMED)
    assert said.err.count("\n") == len(NAMED)
    assert "its checksum is another" in said.err
    if "--json" in words:
        assert [row["address"] for row in json.loads(said.out)] == [GOOD, THIRD]
    elif words == "ls":
        assert [line[:8] for line in said.out.splitlines()[-2:]] == [GOOD[:8], THIRD[:8]]
    elif "csv" in words:
        lines = (tmp_path / "all.csv").read_text().splitlines()
        assert [line[:16] for line in lines[1:]] == [GOOD] * 8 + [THIRD] * 8
    else:
        assert Store(tmp_path).addresses() == [GOOD, THIRD]


def test_a_report_is_written_and_names_what_was_not_read(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report"
    assert main(["report", "--scale", "smoke", "--store", str(store), "--out", str(out)]) == 1
    said = capsys.readouterr()
    assert said.out == f"{out / 'index.html'}\n"
    for page in ("index.html", "report.md"):
        text = (out / page).read_text()
        assert f"Not read: {BAD}.json has changed since it was written" in text
        assert str(tmp_path) not in text


def test_a_damaged_record_is_shown_as_such_and_not_trained_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("train", *SMALL, "--store", str(tmp_path))
    assert main([*words, "--json"]) == 0
    address = json.loads(capsys.readouterr().out)["address"]
    path = tmp_path / f"{address}.json"
    whole, damaged = path.read_bytes(), path.read_bytes()[:-30]
    path.write_bytes(damaged)
    weights_path(tmp_path, address).unlink()

    for command in (words, ("evaluate", address), ("runs", "show", address)):
        assert main([*command, *([] if command == words else words[-2:])]) == 1
        said = capsys.readouterr().err
        assert "`recall runs rm ADDRESS` removes" in said
        assert said.count("\n") == 1
    assert path.read_bytes() == damaged

    assert main(["runs", "rm", address, "--yes", "--store", str(tmp_path)]) == 0
    assert main(words) == 0
    assert len(path.read_bytes()) == pytest.approx(len(whole), abs=20)


def test_a_study_runs_what_it_can_beside_a_damaged_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = small_study.RUNS[:2]
    named = [NamedRun("the first", first), NamedRun("the second", second)]
    monkeypatch.setitem(
        STUDIES, "small", replace(small_study.SMALL, runs=lambda plan, store: named)
    )
    path = tmp_path / "runs" / f"{first.address}.json"
    path.parent.mkdir()
    path.write_text("{")
    words = ("study", "run", "small", "--scale", "whole", "--jobs", "1", "--keep-weights")
    folders = ("--store", str(path.parent), "--out", str(tmp_path / "report"))

    assert main([*words, *folders, "--dry-run", "--json"]) == 0
    states = [row["state"] for row in json.loads(capsys.readouterr().out)]
    assert states == ["damaged", "to do"]

    assert main([*words, *folders, "--quiet"]) == 1
    said = capsys.readouterr()
    assert f"the first: {path} is not a record that can be read" in said.err
    assert "`recall runs rm ADDRESS` removes a record, and its run can then be made" in said.err
    assert "1 of 2 runs failed" in said.out
    assert path.read_text() == "{"
    assert Store(path.parent).read(second.address).run["seed"] == 1
    kept = {one.name.partition(".")[0] for one in (path.parent / "weights").iterdir()}
    assert kept == {second.address}


# Removing


def test_records_are_removed_once_that_is_confirmed(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = weights_path(store, GOOD)
    weights.parent.mkdir()
    weights.touch()
    words = ["runs", "rm", GOOD, BAD, "--store", str(store)]
    before = everything(store)
    for answer in ("\n", "n\n", "", "yess\n"):
        monkeypatch.setattr("sys.stdin", io.StringIO(answer))
        assert main(words) == 0
        assert capsys.readouterr().out == "nothing was removed\n"
        assert everything(store) == before

    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert main(words) == 0
    said = capsys.readouterr()
    assert f"remove 2 records from {store}? [y/N]" in said.err
    assert said.out == f"2 records removed from {store}\n"
    gone = {str(weights), *(str(store / f"{address}.json") for address in (GOOD, BAD))}
    assert before.keys() - everything(store).keys() == gone


def test_records_are_removed_by_a_condition(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["runs", "rm", "--store", str(store), "--yes", "--where"]
    assert main([*words, "seed > 99"]) == 0
    assert "no such records" in capsys.readouterr().out
    assert main([*words, f"seed == {RECORDS[2].run['seed']}"]) == 0
    assert list(Store(store)) == RECORDS[:1]


@pytest.mark.parametrize(
    ("address", "reason"),
    [("0123456789abcdef", "is a folder, which no record is"), ("package", "no record begins with")],
)
def test_what_is_not_ours_is_not_removed(
    store: Path, address: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = everything(store)
    assert main(["runs", "rm", address, GOOD, "--yes", "--store", str(store)]) == 2
    assert reason in capsys.readouterr().err
    assert everything(store) == before


def test_archived_records_are_not_removed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Store(tmp_path / "files").write(RECORDS[0])
    archive(Store(tmp_path / "files"), tmp_path / "all.parquet")
    assert main(["runs", "rm", GOOD, "--yes", "--store", str(tmp_path)]) == 2
    assert "in an archive, which is never changed" in capsys.readouterr().err


def test_a_link_is_removed_and_not_what_it_leads_to(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    Store(elsewhere).write(RECORDS[0])
    linked = tmp_path / "runs" / f"{GOOD}.json"
    linked.parent.mkdir()
    linked.symlink_to(elsewhere / linked.name)
    assert list(Store(linked.parent)) == RECORDS[:1]
    assert main(["runs", "rm", GOOD, "--yes", "--store", str(linked.parent)]) == 0
    assert list(linked.parent.iterdir()) == []
    assert list(Store(elsewhere)) == RECORDS[:1]


# Exporting


@pytest.mark.parametrize("name", [f"{GOOD}.json", "bad.parquet", "table", "0123456789abcdef.json"])
def test_an_export_never_writes_over_a_record(
    store: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = everything(store)
    assert main(["runs", "export", str(store / name), "--store", str(store)]) == 2
    said = capsys.readouterr().err
    assert any(hint in said for hint in ("name the file", "ends in one of", "as an archive"))
    assert everything(store) == before


def test_runs_are_listed_and_exported_as_asked_for(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (store / name for name in NAMED):
        path.rmdir() if path.is_dir() else path.unlink()
    words = ["--where", "task.queries == 2 and model == 'mamba'", "--store", str(store)]
    assert main(["runs", "ls", "--sort", "seed", "--reverse", "--json", *words]) == 0
    seeds = [row["seed"] for row in json.loads(capsys.readouterr().out)]
    assert seeds == sorted((RECORDS[0].run["seed"], RECORDS[2].run["seed"]), reverse=True)

    out = tmp_path / "all.csv"
    assert main(["runs", "export", str(out), *words]) == 0
    table = pl.read_csv(out, infer_schema_length=None)
    assert sorted(table["kind"].unique()) == ["check", "run", "test"]
    assert table["model"].unique().to_list() == ["mamba"]
    assert main(["runs", "ls", "--where", "seed == 77", "--store", str(store)]) == 0
    assert "no such records in" in capsys.readouterr().out


def test_a_list_shows_four_digits_of_a_fraction(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for record in (kept(0, rate=1 / 3), kept(1, rate=3e-4)):
        Store(tmp_path).write(record)
    assert main(["runs", "ls", "--sort", "rate", "--store", str(tmp_path)]) == 0
    _, low, high = capsys.readouterr().out.splitlines()
    assert " 0.0003 " in low
    assert " 0.3333 " in high


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_an_export_has_every_field_and_curve_in_each_format(tmp_path: Path, suffix: str) -> None:
    for one in RECORDS:
        Store(tmp_path / "runs").write(one)
    out = tmp_path / "out" / f"all.{suffix}"
    assert main(["runs", "export", str(out), "--store", str(tmp_path / "runs")]) == 0
    read = {"csv": pl.read_csv, "parquet": pl.read_parquet, "jsonl": pl.read_ndjson}[suffix]
    table = read(out)
    assert table.height == 3 * (1 + 3 + 4)  # a run, its checks, its lengths
    run = RECORDS[0].run
    for part in ("task", "model", "schedule", "checks", "contexts"):
        assert {f"{part}.{name}" for name in run[part]} <= set(table.columns)
    own = table.filter((pl.col("address") == GOOD) & (pl.col("kind") == "check"))
    assert own["at"].to_list() == RECORDS[0].outcome.checks.at
    assert own["loss"].to_list() == RECORDS[0].outcome.losses
    by_query = own["correct_by_query"].to_list()
    assert [json.loads(row) if suffix == "csv" else row for row in by_query] == [[5, 0]] * 3


def test_an_export_never_writes_over_an_archive(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Store(tmp_path / "runs").write(RECORDS[0])
    path = tmp_path / "all.parquet"
    archive(Store(tmp_path / "runs"), path)
    before = path.read_bytes()
    assert main(["runs", "export", str(path), "--store", str(tmp_path / "runs")]) == 2
    assert "is an archive of records, which is never written over" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_a_list_has_the_fields_that_tell_its_runs_apart_and_no_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for one in (*RECORDS, kept(0, checks=4), kept(0, model="hybrid-a")):
        Store(tmp_path).write(one)
    assert main(["runs", "ls", "--store", str(tmp_path)]) == 0
    results = ["steps", "ended_by", "validation", "accuracy"]
    head = capsys.readouterr().out.splitlines()[0].split()
    assert head == ["address", "model", "budget", "seed", *results]
    assert main(["runs", "ls", "--store", str(tmp_path), "--where", "budget == 40"]) == 0
    assert capsys.readouterr().out.splitlines()[0].split() == ["address", "model", *results]


def test_a_folder_that_cannot_be_read_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(path: Path) -> None:  # root may read every folder
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert main(["runs", "ls", "--store", str(tmp_path)]) == 2
    assert f"Permission denied: '{tmp_path}'" in capsys.readouterr().err
