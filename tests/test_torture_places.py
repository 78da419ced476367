"""Places where records cannot be written, or that lead elsewhere, and clocks that jump."""

import itertools
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


JUMPING = """
import itertools, sys, time
from pathlib import Path
jumps = itertools.cycle([0.0, 1e9, -1e9, 12.0])
real = time.time
time.time = lambda: real() + next(jumps)
from recall_arena.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_clock_that_jumps_changes_nothing(tmp_path: Path) -> None:
    words = ("train", "--schedule.steps", "200", "--schedule.context", "8", "--checks.every", "50")
    tests = ("--checks.sequences", "20", "--contexts", "8", "--snapshot-every", "0.01", "-q")
    assert main([*words, *tests, "--store", str(tmp_path / "steady")]) == 0
    command = [sys.executable, "-c", JUMPING, *words, *tests, "--store", str(tmp_path / "jumping")]
    assert subprocess.run(command, capture_output=True, text=True).returncode == 0
    (one,), (other,) = Store(tmp_path / "steady"), Store(tmp_path / "jumping")
    assert same(one, other)
    assert list(itertools.chain((tmp_path / "jumping").rglob("*.partial"))) == []
