"""The command as a person uses it."""

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import small_study
from conftest import Smoke, recall, started
from test_mixers import VARIANTS
from training_checks import finish, same

from recall_arena.cli import main
from recall_arena.cli.commands import COMMANDS
from recall_arena.config import read
from recall_arena.mixers import MIXERS
from recall_arena.mixers.text import read_mixer
from recall_arena.model import ModelSpec, named
from recall_arena.records import Store, archive
from recall_arena.studies import STUDIES, NamedRun
from recall_arena.tasks import TASKS
from recall_arena.zoo import SETTINGS

TINY = (
    *("--schedule.steps", "30", "--checks.every", "10", "--checks.sequences", "50"),
    *("--contexts.stride", "31", "--contexts.sequences", "50", "--quiet"),
)


def test_help_names_every_command_and_does_not_wait_for_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from recall_arena.cli import main; code = main(['--help'])\n"
        "assert 'torch' not in sys.modules and 'matplotlib' not in sys.modules; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in COMMANDS)


HANDLED = """
import signal, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "recall_arena.cli.commands":
            print(signal.getsignal(signal.SIGINT).__name__)
            print([each for each in ("rich", "tyro", "torch") if each in sys.modules])

sys.meta_path.insert(0, Finder())
from recall_arena.cli import main
main(["--version"])
"""


def test_signals_are_handled_before_anything_that_takes_long_is_imported() -> None:
    done = subprocess.run([sys.executable, "-c", HANDLED], capture_output=True, text=True)
    handler, modules, _ = done.stdout.splitlines()
    assert (handler, modules) == ("end_at_once", "[]")


FLAG = r"^[│ ] ((?:--?[a-z]|\[?[A-Z]{3}).*(?:\n[│ ] {3,}[^ │].*)*)"
"""A flag or a positional argument in a help text, with the lines that go on under it."""


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_and_each_of_its_flags(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main([*name.split(), "--help"])
    said = capsys.readouterr().out
    assert end.value.code == 0
    assert f"usage: recall {name}" in said
    flags = re.findall(FLAG, said, re.MULTILINE)
    assert any(flag.startswith("-h, --help") for flag in flags)
    assert [flag for flag in flags if not re.search(r"(  |\n[│ ]) *[^\s(│]", flag)] == []


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("trian", "did you mean 'train'?"),
        ("help trian", "no command 'trian'; did you mean 'train'?"),
        ("stuy run assignment", "did you mean 'study run'?"),
        ("study run asignment", "did you mean 'assignment'?"),
        ("study run assignment --scale quik", "did you mean 'quick'?"),
        ("study run assignment --problem 4", "no problem 4. There are: 1, 2, 3"),
        ("study run assignment --seeds 0", "--seeds must be at least 1, got 0"),
        ("study run assignment --jobs 0", "--jobs must be at least 1, got 0"),
        ("train --model hybrid-c", "did you mean 'hybrid-"),
        ("train --model mamba,atention", "did you mean 'attention'?"),
        ("train --task.quries 4", "--task.queries"),
        ("train --task.queries 17", "queries must be in 1..16, got 17"),
        ("train --task.delay 64", "--schedule.context must be at least 65"),
        ("train --task mqr", "no task 'mqr'; did you mean 'mqar'?"),
        ("train --task=mqr", "no task 'mqr'; did you mean 'mqar'?"),
        ("train --task mqar --task.queries 4", "--task.queries"),
        ("train --task mqar --task.pairs 17", "--schedule.context must be at least 68"),
        ("train --task induction-heads --schedule.context 1", "must be at least 2 with this task"),
        ("train --schedule.rate -1", "rate must be positive, got -1"),
        ("train --schedule.steps many", "many"),
        ("runs show 0123 --store nowhere", "nowhere is not a folder"),
        ("runs show 0123 --store .", "no record begins with '0123' in .; `recall runs ls` shows"),
        ("runs export . --store .", ". is a folder; name the file"),
        ("runs export all.json --store .", "ends in one of .csv, .parquet, .jsonl, got all.json"),
        ("runs export all.parquet --store .", "all.parquet would be read as an archive; write it"),
        ("runs ls --store . --sort acuracy", "did you mean 'accuracy'?"),
        ("runs ls --store . --where sed==1", "no column 'sed'; did you mean 'seed'?"),
        ("runs rm --store .", "name records by their addresses, or by --where"),
        ("runs rm 0123 --store .", "no record begins with '0123' in ."),
        ("runs archive all.json --store .", "an archive's name ends in .parquet, got all.json"),
        ("runs archive all.parquet --store .", ". has no records that . does not have archived"),
        ("train --contexts 64,2^x", "--contexts must be lengths such as 64,128,2^20, got '64,2^x'"),
        ("train --contexts 64,1^2^3", "--contexts must be lengths such as"),
        ("train --contexts 1,64", "--contexts must be at least 2 with this task, got 1"),
        ("train --schedule.shortest 1", "context must be at least 2 with"),
        ("train --schedule.curriculum.kind lineal", "lineal"),
        (
            "train --schedule.curriculum.over delai",
            "no curriculum.over 'delai'; did you mean 'delay'?",
        ),
        ("train --threads 0", "--threads must be in 1..1024, got 0"),
        ("train --fail-fast --retry-failed", "--retry-failed goes on: give one of them"),
        ("train --checks.solved 0", "solved must be above 0 and at most 1, got 0"),
        ("train --checks.solved 1.5", "solved must be above 0 and at most 1, got 1.5"),
        ("train --checks.solved nan", "solved: should be a finite number, got nan"),
        ("train --schedule.clip 0", "clip must be positive, got 0"),
        ("train --schedule.clip inf", "clip: should be a finite number, got inf"),
        ("train --store=", "--store is empty; name a place"),
        ("runs ls --store=", "--store is empty; name a place"),
        ("report --out=", "--out is empty; name a place"),
        ("train --width 0", "width must be at least 1"),
        ("train --mamba.state 0", "mamba: state must be at least 1, got 0"),
        ("train --mamba.stat 4", "--mamba.state"),
        ("train --mamba.state {[]:1}", "state: should be a valid integer, got '{[]:1}'"),
        ("train --mamba.state 1if", "state: should be a valid integer, got '1if'"),
        ("train --mamba.state=", "--mamba.state is empty; give it a value"),
        ("train --model kda --gated-delta.heads 2", "Unrecognized options: --gated-delta.heads"),
        ("train --executor slurm --retry-failed", "--retry-failed is not for slurm"),
        ("train --attention.heads 2", "Unrecognized options: --attention.heads"),
        ("train --model.norm batch", "norm: should be 'layer' or 'rms', got 'batch'"),
        ("train --model.mlp-expand 2", "mlp_expand is of an MLP, and mlp is none; got 2"),
        ("train --contexts.first 1", "--contexts.first must be at least 2 with this task"),
        ("train --contexts.first 9 --contexts.last 8", "at least --contexts.first, got 9 and 8"),
        ("train --store file", "nothing can be written to file: file is not a folder"),
        ("train --store file/runs", "file/runs: file is not a folder"),
        ("evaluate 0123 --threads 0", "--threads must be in 1..1024, got 0"),
        ("runs ls --store nowhere", "nowhere is not a folder"),
        ("report --store nowhere", "nowhere is not a folder"),
        ("evaluate 0123 --store nowhere", "nowhere is not a folder"),
        ("study choose-rates --store nowhere", "nowhere is not a folder"),
        ("study explain --store nowhere", "nowhere is not a folder"),
        ("study run assignment --store file", "nothing can be written to file: file is not a"),
        ("study run assignment --store file --dry-run", "nothing can be written to file: file is"),
        ("study run assignment --out file/report", "written to file/report: file is not a folder"),
        ("report --store . --out file", "nothing can be written to file: file is not a folder"),
        ("runs export file/all.csv --store .", "nothing can be written to file: file is not a"),
        ("runs archive file/all.parquet --store .", "written to file: file is not a folder"),
    ],
)
def test_a_mistake_gets_one_message_with_the_way_out_and_code_2(
    words: str,
    hint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    try:
        code: object = main(words.split())
    except SystemExit as end:  # what the flags' parser found
        code = end.code
    said = capsys.readouterr()

    assert code == 2
    assert hint in re.sub(r"\s+", " ", said.err + said.out)
    assert "Traceback" not in said.err
    assert [path.name for path in tmp_path.iterdir()] == ["file"], "something was done"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder closed to all")
@pytest.mark.parametrize(
    "words",
    [
        "train --store /proc/runs",
        "study run assignment --store /proc/runs",
        "study run assignment --out /proc/report",
        "report --store . --out /proc/report",
        "runs export /proc/all.csv --store .",
    ],
)
def test_a_folder_that_cannot_be_written_to_is_found_before_any_work(
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words.split()) == 2
    said = capsys.readouterr().err
    assert said.startswith("recall: nothing can be written to /proc")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "shown", "code"),
    [
        ("runs --help", "runs export", 0),
        ("help runs", "runs export", 0),
        ("runs", "runs export", 2),
        ("help", "study run", 0),
    ],
)
def test_every_level_has_help(
    words: str, shown: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words.split()) == code
    said = capsys.readouterr().out
    assert shown in said
    assert ("study run" in said) == (words == "help")


def test_help_takes_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["help", "runs", "ls"])
    assert "usage: recall runs ls" in capsys.readouterr().out


def test_models_explains_every_option_that_a_mixer_or_a_model_has(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["models", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told["mixers"]) == set(MIXERS)
    for mixer in MIXERS.values():
        options = told[type(mixer).__name__]
        assert set(options) == {field.name for field in dataclasses.fields(mixer)}
        assert all(about for _, about in options.values())
    assert set(told["settings"]) == set(SETTINGS)
    assert all(about for _, about in told["settings"].values())


def test_a_model_with_options_is_trained_tested_and_listed_by_its_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "mamba(state=4, window=1), attention(heads=2, bias=True); norm=rms; mlp=gelu"
    store = ("--store", str(tmp_path))
    assert main(["train", "--model", text, *TINY, *store, "--json"]) == 0
    address = json.loads(capsys.readouterr().out)["address"]
    assert main(["evaluate", address, "--contexts.stride", "90", *store]) == 0
    assert main(["runs", "ls", *store, "--json"]) == 0
    assert "mamba(state=4, window=1),attention(heads=2, bias=True)" in capsys.readouterr().out


def model_of(words: list[str], capsys: pytest.CaptureFixture[str]) -> ModelSpec:
    """The model of the run that `train` would execute."""
    assert main(["train", "--dry-run", *words]) == 0
    return read(ModelSpec, json.loads(capsys.readouterr().out)["model"])


@pytest.mark.parametrize("text", [*MIXERS, *VARIANTS])
def test_every_option_can_be_said_by_a_flag_as_in_the_models_text(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """And it is said to each layer of that name; others stay as they are."""
    settings = ("positions=learned", "norm=rms", "mlp=swiglu", "mlp_expand=2", "embedding=trained")
    name, options = text.partition("(")[0], read_mixer(text)
    other = "mamba" if name == "attention" else "attention"
    words = ["--model", f"{name}, {other}, {name}", *(f"--model.{each}" for each in settings)]
    words += [
        f"--{name}.{field.name.replace('_', '-')}={getattr(options, field.name)}"
        for field in dataclasses.fields(options)
    ]
    spec = named("; ".join([f"{text}, {other}, {text}", *settings]))
    assert model_of(words, capsys) == spec


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("--model attention(heads=2) --attention.heads 3", "attention(heads=3)"),
        ("--model attention(heads=16) --attention.bias True", "attention(heads=16, bias=True)"),
        ("--model hybrid-a --mamba.rank 3", "mamba(rank=3), attention"),
        ("--model mamba(rank=3),mamba --mamba.rank None", "mamba, mamba"),
        ("--model mamba;mlp_expand=2 --model.mlp gelu", "mamba; mlp=gelu; mlp_expand=2"),
        ("--model transformer-learned --model.positions none", "transformer-nope"),
        ("--model=kda,gated-delta --kda.heads=2", "kda(heads=2), gated-delta"),
    ],
)
def test_a_flag_goes_before_the_text_and_all_is_checked_together(
    words: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    width = 48 if "heads" in text else 8
    found = model_of([*words.split(), "--width", str(width)], capsys)
    assert found == named(text, width=width)


ODD_MIXERS = """
from typing import Literal
from recall_arena.config import frozen
from recall_arena.mixers import MIXERS, Mamba, MixerOptions

@frozen
class Odd(MixerOptions):
    \"\"\"Attributes:
        known: explained, and one of two numbers
    \"\"\"

    known: Literal[1, 2] = 1
    unknown: int = 0

    def build(self, width):
        return Mamba().build(width)

@frozen
class Other(Odd):
    pass

@frozen
class Third(Odd):
    pass

MIXERS["my.odd-one"], MIXERS["class"], MIXERS["task"] = Odd(), Other(), Third()
"""


def test_mixers_of_others_have_flags_whatever_they_are_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """But one that is called as a field of a run is; its options can be said in the text."""
    before = dict(MIXERS)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "odd_mixers.py").write_text(ODD_MIXERS)
    try:
        words = ["--import", "odd_mixers", "--model", "my.odd-one, class, task(known=2)"]
        flags = ["--my.odd-one.known", "2", "--class.unknown", "7", "--task.delay", "3"]
        found = model_of([*words, *flags], capsys)
        assert found.layers == ("my.odd-one(known=2)", "class(unknown=7)", "task(known=2)")
    finally:
        for name in [*MIXERS]:
            if name not in before:
                del MIXERS[name]


@pytest.mark.whole
def test_who_reads_no_further_gets_no_error() -> None:
    """The reader is gone before the first line, so that none can be written."""
    reads, writes = os.pipe()
    os.close(reads)
    words = [sys.executable, "-m", "recall_arena", "models"]
    done = subprocess.run(words, stdout=writes, stderr=subprocess.PIPE, text=True)
    os.close(writes)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize("words", ["--version", "--help", "runs --help", "models"])
def test_standard_output_on_a_full_disk_is_a_line(
    words: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main(words.split()) == 2
        monkeypatch.undo()
        with suppress(OSError):
            full.close()
    assert capfd.readouterr().err == "recall: [Errno 28] No space left on device\n"


@pytest.mark.whole
def test_a_terminal_without_greek_letters_shows_the_rest(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, *["-m", "recall_arena", "study", "run", "assignment", "--dry-run"]],
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=True,
    )
    assert b"Mamba (d = 64, M = 16, ? = 10)" in done.stdout


def test_names_of_files_move_no_cursor_and_make_no_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a\x1b[2J\nb.json").touch()
    assert main(["runs", "ls", "--store", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err
    assert "a\\x1b[2J\\nb.json" in said.err
    (line,) = [line for line in said.err.splitlines() if "2J" in line]
    assert line.startswith("recall: ")


def test_nothing_typed_shows_the_help_and_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "study run" in capsys.readouterr().out


def test_train_keeps_a_record_and_weights_that_evaluate_takes_further(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ("--store", str(tmp_path))
    words = ("train", "--model", "hybrid-a", "--task.queries", "4", "--task.delay", "1", *TINY)

    assert main([*words, *store, "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    record = tmp_path / f"{first['address']}.json"
    written = record.stat().st_mtime_ns
    assert [row["context"] for row in first["accuracy"]] == list(range(2, 193, 31))

    assert main([*words, *store]) == 0
    said = capsys.readouterr().out
    assert "95 % interval" in said
    assert first["address"] in said
    assert record.stat().st_mtime_ns == written, "the second call trained again"

    at = ("--contexts.first", "2", "--contexts.last", "64", "--contexts.stride", "31")
    test = ("--contexts.sequences", "50", "--json")
    assert main(["evaluate", first["address"][:6], *at, *test, *store]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again == [row for row in first["accuracy"] if row["context"] <= 64]


SMALL = {
    "mqar": ("--task.pairs", "2", "--task.vocabulary", "16"),
    "induction-heads": ("--task.train-on", "all"),
    "associative-recall": ("--task.queries", "4"),
}


@pytest.mark.whole
def test_records_of_all_tasks_stand_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert SMALL.keys() == TASKS.keys()
    for name, flags in SMALL.items():
        assert main(["train", "--task", name, *flags, "--model", "mamba,attention", *TINY]) == 0
    addresses = Store(tmp_path / "runs").addresses()
    assert len(addresses) == len(TASKS)
    for address in addresses:
        assert main(["runs", "show", address]) == 0
        assert main(["evaluate", address, "--contexts.last", "40", *TINY[6:8]]) == 0
    capsys.readouterr()

    assert main(["runs", "ls"]) == 0
    listed = capsys.readouterr().out
    assert len(listed.splitlines()) > len(TASKS)
    assert main(["runs", "ls", "--json"]) == 0
    assert {row["task.kind"] for row in json.loads(capsys.readouterr().out)} == set(TASKS)
    assert main(["runs", "export", "all.csv"]) == 0
    table = pl.read_csv("all.csv", infer_schema_length=None)
    assert set(table["task.kind"]) == set(TASKS)
    tested = table.filter((pl.col("task.kind") == "mqar") & (pl.col("kind") == "test"))
    assert tested["asked"].unique().to_list() == [100]
    assert main(["report", "--scale", "smoke"]) == 0


def test_any_lengths_are_tested_after_any_curriculum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    gated = ("--schedule.curriculum.kind", "gated", "--schedule.curriculum.gate", "0.01")
    ranged = ("--schedule.shortest", "8", "--schedule.weight-decay", "0.1")
    lengths = ("--contexts", "16,2^5,8")
    assert main(["train", *gated, *ranged, *lengths, *TINY, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [row["context"] for row in said["accuracy"]] == [8, 16, 32]
    assert main(["evaluate", said["address"], "--contexts", "2^6", "--json"]) == 0
    assert [row["context"] for row in json.loads(capsys.readouterr().out)] == [64]


def test_train_keeps_no_weights_where_none_are_wanted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("train", *TINY, "--store", str(tmp_path))
    assert main([*words, "--no-keep-weights", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["weights"] is None
    assert [path.suffix for path in tmp_path.rglob("*.*")] == [".json"]
    assert main(["evaluate", first["address"], "--store", str(tmp_path)]) == 2
    assert "`recall train` keeps them" in capsys.readouterr().err

    assert main([*words, "--json"]) == 0
    weights = Path(json.loads(capsys.readouterr().out)["weights"])
    weights.write_bytes(weights.read_bytes()[:100])
    assert main(["evaluate", first["address"], "--store", str(tmp_path)]) == 2
    assert "does not hold this model's weights" in capsys.readouterr().err


@pytest.fixture(params=["files", "an archive"])
def kept(request: pytest.FixtureRequest, smoke: Smoke, tmp_path: Path) -> Path:
    """The records of the smoke study, as a store that holds them in one of two ways."""
    if request.param == "files":
        return smoke.store
    archive(Store(smoke.store), tmp_path / "archive" / "all.parquet")
    return tmp_path / "archive"


def test_a_store_can_be_listed_shown_and_exported(
    kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ("--store", str(kept))
    assert main(["runs", "ls", *store, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 28
    assert all(0 <= row["validation"] <= 1 for row in rows)

    assert main(["runs", "show", rows[0]["address"], *store]) == 0
    assert rows[0]["address"] in capsys.readouterr().out

    assert main(["runs", "export", str(tmp_path / "all.csv"), *store]) == 0
    table = pl.read_csv(tmp_path / "all.csv", infer_schema_length=None)
    lengths = 6  # 32, 64, ... 192
    assert table.filter(pl.col("kind") == "test").height == 28 * lengths


def test_an_archive_is_packed_once_and_read_in_place_of_the_files(
    smoke: Smoke, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = tmp_path / "published" / "part.parquet"
    words = ("runs", "archive", str(part), "--store", str(smoke.store))
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"archive": str(part), "records": 28}
    assert list(Store(part.parent)) == list(Store(smoke.store))

    assert main(words) == 2
    assert "part.parquet exists" in capsys.readouterr().err

    study = ("study", "run", "assignment", "--scale", "smoke", "--dry-run", "--json")
    assert main([*study, "--store", str(part.parent)]) == 0
    assert {row["state"] for row in json.loads(capsys.readouterr().out)} == {"done"}


def test_the_doctor_tells_which_kernels_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert {"python", "torch", "kernels", "cores"} <= facts.keys()


def test_studies_are_listed_with_their_scales(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "ls"]) == 0
    said = capsys.readouterr().out
    assert all(study.question in said for study in STUDIES.values())


def test_a_study_ends_with_its_report(smoke: Smoke) -> None:
    assert smoke.output.splitlines()[-1] == "report/index.html"
    assert (smoke.report / "index.html").exists()


def test_a_dry_run_lists_and_runs_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("study", "run", "assignment", "--problem", "1", "--dry-run", "--json")
    assert main([*words, "--store", str(tmp_path / "runs"), "--out", str(tmp_path)]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 12
    assert {row["state"] for row in rows} == {"to do"}
    assert list(tmp_path.iterdir()) == []


STUDY = ("study", "run", "small", "--scale", "whole", "--import", "small_study", "--jobs", "2")


def with_small_study(folder: Path) -> Path:
    """The folder, with the module from which a command there imports the study."""
    shutil.copy(small_study.__file__, folder)
    return folder


def interrupted(folder: Path, number: signal.Signals, code: int) -> Path:
    """The store of a study that was stopped after its first record, and ended cleanly."""
    working = started(*STUDY, cwd=with_small_study(folder))
    runs = folder / "runs"
    while not list(runs.glob("*.json")):
        assert working.poll() is None, "it ended before it was interrupted"
        time.sleep(0.02)
    if number == signal.SIGINT:
        os.killpg(working.pid, number)  # as a terminal does it: the workers get it too
    else:
        working.terminate()
    _, said = working.communicate(timeout=60)

    assert working.returncode == code
    assert "the same command goes on" in said
    assert "Traceback" not in said
    finished = {path.stem for path in runs.glob("*.json")}
    assert 0 < len(finished) < len(small_study.RUNS)
    assert list(runs.glob(".*")) == [], "something half-written was left"
    return runs


@pytest.mark.whole
def test_a_terminated_study_ends_cleanly(tmp_path: Path) -> None:
    interrupted(tmp_path, signal.SIGTERM, 143)


@pytest.fixture(scope="module")
def continued(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a study was interrupted, ended cleanly and was gone on with."""
    folder = tmp_path_factory.mktemp("continued")
    interrupted(folder, signal.SIGINT, 130)
    done = recall(*STUDY, "--quiet", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.whole
def test_an_interrupted_study_goes_on_to_the_same_records(continued: Path) -> None:
    store = Store(continued / "runs")
    assert len(list(store)) == len(small_study.RUNS)
    for run in small_study.RUNS:
        assert same(store.read(run.address), finish(run)[1])


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its relative name."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.mark.whole
def test_a_second_call_trains_nothing_and_rebuilds_the_report_to_the_byte(continued: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (continued / "runs").glob("*.json")}
    done = recall(*STUDY, "--out", "again", cwd=continued)
    assert done.returncode == 0, done.stderr
    assert "0 of 8 runs to do" in done.stderr
    after = {path: path.stat().st_mtime_ns for path in (continued / "runs").glob("*.json")}
    assert after == before
    assert files(continued / "again") == files(continued / "report")


IMPORTING = """
import sys
from recall_arena.cli import main
print("ready", flush=True)
sys.exit(main(["train", "--schedule.steps", "10000000"]))
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("seconds", [0.2, 0.8])
def test_a_command_that_is_stopped_while_modules_are_imported_ends_in_one_line(
    tmp_path: Path, number: signal.Signals, code: int, seconds: float
) -> None:
    working = subprocess.Popen(
        [sys.executable, "-c", IMPORTING],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert working.stdout is not None
    working.stdout.readline()
    time.sleep(seconds)
    working.send_signal(number)
    _, said = working.communicate(timeout=60)

    assert working.returncode == code
    assert said in ("recall: stopped\n", "recall: terminated\n")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_run_is_named_the_others_go_on_and_the_code_is_1(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    good = NamedRun("good", small_study.RUNS[0])
    short = ModelSpec(("attention",), positions="learned", max_length=8)
    bad = NamedRun("too short", replace(good.run, model=short))
    study = replace(small_study.SMALL, runs=lambda plan, store: [bad, good])
    monkeypatch.setitem(STUDIES, "small", study)

    folders = ("--store", str(tmp_path / "runs"), "--out", str(tmp_path / "report"))
    code = main(["study", "run", "small", "--scale", "whole", "--jobs", "1", *folders])

    said = capsys.readouterr()
    assert code == 1
    assert "too short failed: ValueError: learned positions reach 8 tokens" in said.err
    assert good.run.address in Store(tmp_path / "runs")
    assert "1 of 2 runs failed" in said.out
