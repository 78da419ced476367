"""What the tests share: one thread, patient property tests, and the assignment run once."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import without_jax  # noqa: F401
from covering import mark_slow_cases
from filelock import FileLock
from hypothesis import settings
from torture import Figures, Scale

from recall_arena.kernels import native

ROOT = Path(__file__).parent.parent

torch.set_num_threads(1)  # the tensors are tiny, and a second thread only costs
settings.register_profile("quick", deadline=None, max_examples=20, print_blob=True)
settings.register_profile("thorough", settings.get_profile("quick"), max_examples=200)
settings.load_profile("quick")  # `make test-slow` chooses the other


@pytest.hookimpl(tryfirst=True)  # before `-m "not slow and not whole"` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    mark_slow_cases(items)
    for item in items:
        if isinstance(item, pytest.Function) and "smoke" in item.fixturenames:
            item.add_marker(pytest.mark.whole)


SMOKE = ("study", "run", "assignment", "--scale", "smoke")


@dataclass(frozen=True)
class Smoke:
    """The folders that `SMOKE` wrote, and what it said."""

    store: Path
    report: Path
    output: str


def recall(*words: str, cwd: Path, timeout: float = 240) -> "subprocess.CompletedProcess[str]":
    """Call the command as a person does, in a folder."""
    return subprocess.run(
        [sys.executable, "-m", "recall_arena", *words],
        cwd=cwd,
        timeout=timeout,
        capture_output=True,
        text=True,
    )


def started(*words: str, cwd: Path) -> "subprocess.Popen[str]":
    """The same, at work; it leads a session, so that a signal can reach all of its processes."""
    return subprocess.Popen(
        [sys.executable, "-m", "recall_arena", *words],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def ended(process: "subprocess.Popen[str]", timeout: float = 240) -> int:
    """Wait for a process that tells by pipes; its exit code."""
    process.communicate(timeout=timeout)
    return process.returncode


Made = Callable[[str, Callable[[Path], object]], Path]
"""(name, make) to a folder."""


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Made:
    """Folders that all workers of the test session share: the first that asks makes one."""
    base = tmp_path_factory.getbasetemp()
    common = base if worker_id == "master" else base.parent

    def folder_of(name: str, make: Callable[[Path], object]) -> Path:
        folder, done = common / name, common / f"{name}.done"
        with FileLock(common / f"{name}.lock"):
            if not done.exists():
                folder.mkdir(exist_ok=True)
                make(folder)
                done.touch()
        return folder

    return folder_of


@pytest.fixture(scope="session")
def smoke(made_once: Made) -> Smoke:
    """One run for all workers of the test session."""

    def make(folder: Path) -> None:
        done = recall(*SMOKE, cwd=folder)
        assert done.returncode == 0, done.stderr
        (folder / "said.txt").write_text(done.stdout)

    folder = made_once("smoke", make)
    return Smoke(folder / "runs", folder / "report", (folder / "said.txt").read_text())


@pytest.fixture(params=["avx512", "avx2", "baseline"])
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    """The compiled kernels for one instruction set; the best one again afterwards."""
    best = native.instruction_set()
    if best is None:
        pytest.skip(f"here run {native.REASON}")
    try:
        native.choose_instruction_set(request.param)
    except ValueError as error:
        pytest.skip(str(error))
    yield request.param
    native.choose_instruction_set(best)


@pytest.fixture
def shared_out(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Even small calls are shared out among threads; the number of threads is put back."""
    monkeypatch.setattr(native, "WORTH_A_THREAD", 1)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The compiled kernels that ran, by name and in order."""
    names: list[str] = []
    call = native.call

    def listed(name: str, arguments: Any, workers: int) -> int:
        names.append(name)
        return call(name, arguments, workers)

    monkeypatch.setattr(native, "call", listed)
    return names


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--torture", action="store_true", help="as much torture as docs/ tell of")


@pytest.fixture
def scale(request: pytest.FixtureRequest) -> Scale:
    """How much of a torture: by default, or in full."""
    full = request.config.getoption("--torture")
    return lambda by_default, in_full: in_full if full else by_default


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Figures:
    """Keeps what a torture found, where it was done in full."""
    begun = time.monotonic()

    def keep(**found: float) -> None:
        line = {"test": request.node.name, "seconds": round(time.monotonic() - begun), **found}
        if request.config.getoption("--torture"):
            from benchmarks import machine  # a script that imports this file may not find it

            line |= {"machine": machine.name(), "commit": machine.commit()}
            with (ROOT / "results" / "torture.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")

    return keep
