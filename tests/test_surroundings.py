"""What surrounds a command: terminals, limits, full and closed streams, odd variables."""

import os
import pty
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import recall, started

from recall_arena.cli import main
from recall_arena.records import Store

pytestmark = pytest.mark.whole

TRAIN = (
    *("train", "--schedule.steps", "30", "--schedule.context", "8", "--schedule.batch", "4"),
    *("--checks.every", "10", "--checks.sequences", "20", "--contexts", "4,8"),
)
WORDS = [sys.executable, "-m", "recall_arena"]
Called = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def called(tmp_path: Path) -> Called:
    """Call the command in a folder of its own, with what is said of its surroundings."""

    def call(*words: str, **how: object) -> "subprocess.CompletedProcess[str]":
        kept = {"cwd": tmp_path, "text": True, "timeout": 120}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.run([*WORDS, *words], **{**pipes, **kept, **how})  # type: ignore[call-overload, no-any-return]

    return call


def on_a_terminal(words: list[str], folder: Path, columns: str) -> str:
    """What a command writes to a terminal, errors too, without what moves the cursor."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": columns}
    process = subprocess.Popen(
        [*WORDS, *words], cwd=folder, env=environment, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    seen = bytearray()
    while True:
        try:
            seen += (some := os.read(ours, 65536))
        except OSError:  # the other end is closed
            break
        if not some:
            break
    os.close(ours)
    assert process.wait(timeout=60) == 0, seen.decode()
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", seen.decode())


@pytest.mark.parametrize("columns", ["0", "1", "20", "80"])
def test_a_table_is_never_empty_however_narrow_the_terminal(columns: str, tmp_path: Path) -> None:
    assert main([*TRAIN, "--store", str(tmp_path / "runs"), "--quiet"]) == 0
    (address,) = Store(tmp_path / "runs").addresses()
    shown = on_a_terminal(["runs", "ls"], tmp_path, columns)
    assert address[:8] in shown, "an address is folded"
    assert "mamba" in shown


def test_where_programs_read_a_row_is_a_line(called: Called) -> None:
    assert called(*TRAIN, "--quiet").returncode == 0
    wide = (
        "--model",
        "mamba(state=4, window=1), attention(heads=2, bias=True); norm=rms; mlp=gelu",
    )
    assert called(*TRAIN, *wide, "--quiet").returncode == 0
    lines = called("runs", "ls").stdout.splitlines()
    assert len(lines) == 3
    assert all(re.match(r"[0-9a-f]{8} ", line) for line in lines[1:])


def test_runs_at_work_are_shown_as_bars_on_a_terminal_and_as_lines_elsewhere(
    called: Called, tmp_path: Path
) -> None:
    longer = [word.replace("30", "3000") for word in TRAIN[1:]]
    grid = ["sweep", *longer, "--checks.running", "1000", "--grid", "seed=0,1", "--jobs", "2"]
    shown = on_a_terminal(grid, tmp_path, "120")
    assert "2 of 2 runs done" in shown
    assert "━" in shown
    assert re.search(r"seed=[01] .*of 3,000, accuracy|seed=[01] .*testing", shown)
    (tmp_path / "runs").rename(tmp_path / "before")
    told = called(*grid).stderr
    first, *_, last = told.splitlines()
    assert (first, last) == ("2 of 2 runs to do", "2 of 2 runs done")


def test_few_open_files_are_enough(called: Called, tmp_path: Path) -> None:
    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))

    one = called(*TRAIN, "--quiet", preexec_fn=few)
    assert (one.returncode, one.stderr) == (0, "")
    several = called("sweep", *TRAIN[1:], "--grid", "seed=0,1,2,3", "--jobs", "4", preexec_fn=few)
    assert several.returncode == 0, several.stderr
    assert len(Store(tmp_path / "runs").addresses()) == 4


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_full_standard_output_loses_the_table_and_not_the_record(
    called: Called, tmp_path: Path
) -> None:
    with Path("/dev/full").open("w") as full:
        done = called(*TRAIN, "--quiet", stdout=full)
    assert (done.returncode, done.stderr) == (2, "recall: [Errno 28] No space left on device\n")
    assert len(list(Store(tmp_path / "runs"))) == 1


def test_kernels_that_do_not_exist_are_refused_with_those_that_do(called: Called) -> None:
    done = called(*TRAIN, env={**os.environ, "RECALL_ARENA_KERNELS": "avx1024"})
    assert done.returncode == 2
    assert done.stderr == (
        "recall: RECALL_ARENA_KERNELS must be one of definition, avx512, avx2, baseline, "
        "got 'avx1024'\n"
    )


SLOW = """
import os, time
from pathlib import Path
from recall_arena.config import frozen
from recall_arena.mixers import MIXERS, Mixer, MixerOptions

class Slow(Mixer):
    def forward(self, x, last=False):
        Path("at-work").touch()
        time.sleep(float(os.environ["SECONDS"]))
        return x[:, -1] if last else x

    def state_size(self, context):
        return 0

@frozen
class SlowOptions(MixerOptions):
    def build(self, width):
        return Slow()

MIXERS["slow"] = SlowOptions()
"""


def within_a_step(
    folder: Path, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> "subprocess.Popen[str]":
    """A command whose step takes so long, while it is under way."""
    monkeypatch.setenv("SECONDS", str(seconds))
    (folder / "slow_mixer.py").write_text(SLOW)
    words = (*TRAIN, "--model", "slow", "--import", "slow_mixer", "--quiet")
    process = started(*words, cwd=folder)
    deadline = time.monotonic() + 60
    while not (folder / "at-work").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


def test_a_signal_lets_a_step_end_and_keeps_what_it_has_come_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = within_a_step(tmp_path, 3.0, monkeypatch)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "the same command goes on from there" in said
    assert len(list(tmp_path.glob("runs/unfinished/*.safetensors"))) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_a_command_at_once(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = within_a_step(tmp_path, 600.0, monkeypatch)
    process.send_signal(number)
    time.sleep(1.0)
    assert process.poll() is None, "the step was broken off"
    process.send_signal(number)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + number
    assert said.count("\n") == 1
    assert said.startswith("recall: ")
    assert list((tmp_path / "runs").glob("*.json")) == []


PICKLED = """
import pickle, sys
from pathlib import Path
class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("exploded"),))
for place in sys.argv[1:]:
    Path(place).parent.mkdir(parents=True, exist_ok=True)
    Path(place).write_bytes(pickle.dumps(Bomb()))
"""


def test_a_pickle_in_the_place_of_weights_or_a_snapshot_is_named_and_never_opened(
    called: Called, tmp_path: Path
) -> None:
    assert called(*TRAIN, "--quiet").returncode == 0
    (address,) = Store(tmp_path / "runs").addresses()
    weights = f"runs/weights/{address}.safetensors"
    words = [sys.executable, "-c", PICKLED, weights]
    subprocess.run(words, cwd=tmp_path, check=True)
    done = called("evaluate", address, "--contexts", "8")
    assert done.returncode in (1, 2)
    assert done.stderr.count("\n") == 1
    assert weights in done.stderr

    (tmp_path / "runs" / f"{address}.json").rename(tmp_path / "before.json")
    subprocess.run(
        [*words[:-1], f"runs/unfinished/{address}.safetensors"], cwd=tmp_path, check=True
    )
    again = called(*TRAIN, "--quiet")
    assert again.returncode == 0
    assert "is damaged" in again.stderr
    assert "it is trained from its beginning" in again.stderr
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("words", [("runs", "ls"), ("runs", "export", "all.csv"), ("verify",)])
def test_an_ascii_terminal_gets_every_row(words: tuple[str, ...], tmp_path: Path) -> None:
    assert recall(*TRAIN, "--quiet", cwd=tmp_path).returncode == 0
    done = subprocess.run(
        [*WORDS, *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (address,) = Store(tmp_path / "runs").addresses()
    exported = tmp_path / "all.csv"
    assert address[:8] in done.stdout + (exported.read_text() if exported.exists() else "")
