"""Places where records cannot be written, or that lead elsewhere, and clocks that jump."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from test_resuming import RUNS
from torture import Figures
from training_checks import finish, same

from recall_arena.cli import main
from recall_arena.executors import Failed, Noted, execute_all, here
from recall_arena.records import Store, snapshot_path, weights_path

pytestmark = pytest.mark.whole

RUN = RUNS["mamba"]


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB, of its own."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("a small file system can be mounted by root alone")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_on_a_full_disk_what_is_finished_stays_whole_and_space_lets_it_go_on(
    full_disk: Path, monkeypatch: pytest.MonkeyPatch, figures: Figures
) -> None:
    monkeypatch.setattr(here, "SECONDS_BETWEEN_NEWS", 0.0)
    store = Store(full_disk)
    runs = [replace(RUN, seed=seed) for seed in range(10)]
    filler = full_disk / "filler"
    events = list(execute_all(runs[:2], store, snapshot_seconds=0.0))
    filler.write_bytes(bytes(max(0, os.statvfs(full_disk).f_bavail - 2) * 4096))
    events = list(execute_all(runs, store, snapshot_seconds=0.0))
    failed = [event for event in events if isinstance(event, Failed)]
    noted = [event for event in events if isinstance(event, Noted)]
    assert failed
    assert noted
    assert all("No space left on device" in event.reason for event in failed)
    assert len({event.address for event in noted}) == len(noted), "it was said more than once"
    assert not list(full_disk.rglob("*.partial"))
    assert all(same(store.read(run.address), finish(run)[1]) for run in runs[:2])
    filler.unlink()
    for path in full_disk.rglob("*.lock"):
        assert path.stat().st_size == 0
    list(execute_all(runs[:6], store))
    assert all(same(store.read(run.address), finish(run)[1]) for run in runs[:6])
    figures(failed=len(failed), kept=len(list(store)))


def test_a_folder_that_is_a_link_is_written_through_and_a_record_that_is_one_is_read(
    tmp_path: Path,
) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "link"
    link.symlink_to("real")
    list(execute_all([RUN], Store(link)))
    record = tmp_path / "real" / f"{RUN.address}.json"
    assert record.exists()
    other = tmp_path / "other"
    other.mkdir()
    (other / record.name).symlink_to(record)
    assert same(Store(other).read(RUN.address), finish(RUN)[1])
    assert list(execute_all([RUN], Store(other))) == []


def test_a_snapshot_or_weights_that_are_links_elsewhere_are_replaced_and_nothing_is_written_there(
    tmp_path: Path,
) -> None:
    store, target = Store(tmp_path / "runs"), tmp_path / "precious"
    target.write_text("mine")
    for path in (snapshot_path(store.folder, RUN.address), weights_path(store.folder, RUN.address)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)
    list(execute_all([RUN], store, keep_weights=True))
    assert target.read_text() == "mine"


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A store with a record and its weights, on a file system that takes nothing any more."""
    folder = tmp_path / "store"
    folder.mkdir()
    mount = ("mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder))
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a file system can be mounted by root alone")
    try:
        list(execute_all([RUN], Store(folder), keep_weights=True))
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_store_that_nobody_may_write_to_can_be_read_in_every_way(
    read_only: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, out = ("--store", str(read_only)), tmp_path / "out"
    assert main(["plot", str(read_only), "--out", str(out / "all.svg")]) == 0
    for words in (
        ("runs", "ls"),
        ("runs", "show", RUN.address),
        ("runs", "export", str(out / "all.csv")),
        ("runs", "archive", str(out / "all.parquet")),
        ("runs", "save", RUN.address, str(out / "saved"), "--layout", "mamba-ssm"),
        ("evaluate", RUN.address, "--contexts", "8"),
        ("report", "--scale", "smoke", "--out", str(out / "report")),
        ("verify", "--quiet"),
    ):
        capsys.readouterr()
        code = main([*words, *store])
        said = capsys.readouterr()
        assert (code, said.err) == (0, ""), words


def test_a_store_that_nobody_may_write_to_is_a_line_before_any_work(
    read_only: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(read_only.rglob("*"))
    for words in (
        ("train",),
        ("sweep", "--grid", "seed=0,1"),
        ("study", "run", "assignment", "--scale", "smoke"),
        ("extend", RUN.address, "--contexts", "8"),
        ("runs", "rm", RUN.address, "--yes"),
    ):
        assert main([*words, "--store", str(read_only)]) in (1, 2), words
        said = capsys.readouterr()
        assert said.err.count("\n") == 1, words
        assert "Read-only file system" in said.err
        assert said.out == ""
    assert sorted(read_only.rglob("*")) == before


JUMPING = """
import itertools, sys, time
jumps = itertools.cycle([0.0, 1e9, -1e9, 12.0])
real, nanoseconds = time.time, time.time_ns
time.time = lambda: real() + next(jumps)
time.time_ns = lambda: nanoseconds() + int(1e9 * next(jumps))
from recall_arena import index
from recall_arena.cli import main
index.WORTH_AN_INDEX = 1
sys.exit(main(sys.argv[1:]))
"""


def test_a_clock_that_jumps_changes_nothing(tmp_path: Path) -> None:
    """Trained, listed by way of an index, and swept: files of others seem old, or of the future."""
    words = ("train", "--schedule.steps", "200", "--schedule.context", "8", "--checks.every", "50")
    tests = ("--checks.sequences", "20", "--contexts", "8", "--snapshot-every", "0.01", "-q")
    assert main([*words, *tests, "--store", str(tmp_path / "steady")]) == 0
    store = ("--store", str(tmp_path / "jumping"))

    def jumping(*said: str) -> str:
        command = [sys.executable, "-c", JUMPING, *said, *store]
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    jumping(*words, *tests)
    (one,), (other,) = Store(tmp_path / "steady"), Store(tmp_path / "jumping")
    assert same(one, other)
    os.utime(tmp_path / "jumping" / f"{other.address}.json", (0, 4e9))
    for _ in range(3):
        assert other.address[:8] in jumping("runs", "ls")
    jumping(*words, *tests, "--seed", "1")
    listed = jumping("runs", "ls")
    assert all(record.address[:8] in listed for record in Store(tmp_path / "jumping"))
    assert list((tmp_path / "jumping").rglob("*.partial")) == []
