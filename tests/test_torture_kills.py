"""Killed at any moment, a command loses nothing finished and ends with the same records."""

import os
import random
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import ended, started
from torture import Figures, Scale
from training_checks import same

from recall_arena.records import Record, Store

pytestmark = pytest.mark.whole

SWEEP = (
    *("sweep", "--grid", "seed=0,1,2", "--grid", "model=mamba|attention-rope, attention-rope"),
    *("--schedule.rate", "0.01", "--schedule.steps", "400", "--schedule.context", "16"),
    *("--schedule.batch", "8", "--checks.every", "50", "--checks.sequences", "50"),
    *("--contexts", "8,16", "--keep-weights", "--jobs", "2", "--snapshot-every", "0.1", "--quiet"),
)
RUNS = 6


def sweeping(folder: Path) -> "subprocess.Popen[str]":
    return started(*SWEEP, cwd=folder)


def finished(folder: Path) -> dict[str, Record]:
    return {record.address: record for record in Store(folder / "runs")}


def of_group(group: int) -> list[int]:
    """The processes of a session, its leader last."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[3]) == group:
                found.append(int(path.parent.name))
    return sorted(found, key=lambda process: process == group)


@dataclass(frozen=True)
class Uninterrupted:
    records: dict[str, Record]
    seconds: float


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Uninterrupted:
    """One run after another, which needs no workers to start."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    begun = time.monotonic()
    assert ended(started(*SWEEP, "--jobs", "1", cwd=folder)) == 0
    seconds = time.monotonic() - begun
    records = finished(folder)
    assert len(records) == RUNS
    return Uninterrupted(records, seconds)


def assert_same(found: dict[str, Record], expected: dict[str, Record]) -> None:
    for address, record in found.items():
        assert same(record, expected[address])


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="Linux tells who is in a session")
def test_killed_again_and_again_a_command_ends_with_the_same_records(
    tmp_path: Path, uninterrupted: Uninterrupted, scale: Scale, figures: Figures
) -> None:
    """One kill in four comes at any moment from the start on, the others once the call has written
    a snapshot or a record: most of the time before is that of imports."""
    draw = random.Random(0)
    kills = dict.fromkeys(("parent", "worker", "group"), 0)
    rounds = seen = at_work = 0
    while sum(kills.values()) < scale(2, 200):
        process, begun = sweeping(tmp_path), time.time()
        if draw.random() < 1 / 4:
            time.sleep(draw.uniform(0, 1) * uninterrupted.seconds)
        else:
            while process.poll() is None and not _has_written(tmp_path / "runs", begun):
                time.sleep(0.02)
            time.sleep(draw.uniform(0, 1.5))
        target = draw.choice(list(kills))
        if process.poll() is None:
            at_work += _has_written(tmp_path / "runs", begun)
            _kill(process, target, draw)
            kills[target] += 1
        if target == "worker":  # the others go on; then the command is stopped as a person does it
            time.sleep(draw.uniform(0, 1))
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=120)
        _all_ended(process.pid)
        records = finished(tmp_path)
        assert len(records) >= seen, "a record was lost"
        assert_same(records, uninterrupted.records)
        seen = len(records)
        if seen == RUNS:
            shutil.rmtree(tmp_path / "runs")
            rounds, seen = rounds + 1, 0
    assert ended(sweeping(tmp_path)) == 0
    records = finished(tmp_path)
    assert records.keys() == uninterrupted.records.keys()
    assert_same(records, uninterrupted.records)
    left = [path.name for path in (tmp_path / "runs").rglob("*.partial")]
    assert left == []
    assert [path.name for path in (tmp_path / "runs" / "unfinished").glob("*.safetensors")] == []
    assert at_work >= scale(0, 100), "nearly all were killed before they had done anything"
    figures(**kills, **{"after snapshots or records": at_work, "sweeps to their end": rounds + 1})


def _has_written(folder: Path, since: float) -> bool:
    """Whether there is a snapshot or a record that is younger."""
    for path in folder.rglob("*.*"):
        with suppress(FileNotFoundError):
            if path.suffix in (".safetensors", ".json") and path.stat().st_mtime >= since:
                return True
    return False


def _kill(process: "subprocess.Popen[str]", target: str, draw: random.Random) -> None:
    with suppress(ProcessLookupError):
        if target == "group":
            os.killpg(process.pid, signal.SIGKILL)
        elif target == "parent":
            process.kill()
        else:
            others = of_group(process.pid)[:-1]
            os.kill(draw.choice(others) if others else process.pid, signal.SIGKILL)


def _all_ended(group: int) -> None:
    """Wait for the workers of a killed command, which find out at their next news."""
    deadline = time.monotonic() + 60
    while of_group(group):
        assert time.monotonic() < deadline, "a worker went on without its parent"
        time.sleep(0.05)
