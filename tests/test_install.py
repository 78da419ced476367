"""Installation without a compiler: it succeeds, says so, and the core still works."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from conftest import ROOT

pytestmark = pytest.mark.slow
CORE = ("test_task.py", "test_mixers.py", "test_model.py", "test_training.py", "test_evaluation.py")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package built where no compiler can be found, and unpacked into a folder."""
    folder = tmp_path_factory.mktemp("no-compiler")
    programs = folder / "programs"
    programs.mkdir()
    for name in ("cmake", "ninja"):
        found = shutil.which(name)
        assert found is not None
        (programs / name).symlink_to(found)
    source = folder / "source"
    shutil.copytree(
        ROOT, source, ignore=shutil.ignore_patterns(".venv", ".git", "build", "results", "runs")
    )
    environment = {k: v for k, v in os.environ.items() if k not in ("CC", "CXX", "CFLAGS")}
    words = ("-m", "pip", "install", "--no-deps", "--no-build-isolation", "--quiet")
    subprocess.run(
        [sys.executable, *words, "--target", str(folder / "site"), str(source)],
        env={**environment, "PATH": str(programs)},
        check=True,
    )
    return folder / "site"


def without_the_editable_one(installed: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """Python with the folder in front, and no .pth file that leads to the checkout."""
    site = sysconfig.get_paths()["purelib"]
    return subprocess.run(
        [sys.executable, "-S", *words],
        env={**os.environ, "PYTHONPATH": f"{installed}{os.pathsep}{site}"},
        cwd=installed,
        capture_output=True,
        text=True,
    )


def test_it_installs_and_the_doctor_says_why_it_is_slower(installed: Path) -> None:
    done = without_the_editable_one(installed, "-m", "recall_arena", "doctor")
    assert done.returncode == 0, done.stderr
    assert "built without a C++ compiler" in done.stdout


def test_the_core_of_the_tests_passes(installed: Path) -> None:
    tests = [str(ROOT / "tests" / name) for name in CORE]
    settings = (
        "-c",
        str(ROOT / "pyproject.toml"),
        "--rootdir",
        str(ROOT),
        "-p",
        "no:cacheprovider",
    )
    done = without_the_editable_one(installed, "-m", "pytest", "-q", *settings, *tests)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "failed" not in done.stdout


def test_the_kernels_pass_under_the_sanitizers(tmp_path: Path):
    """Reads and writes beyond a buffer, undefined behaviour and leaks end the program."""
    subprocess.run(
        ["cmake", "-S", str(ROOT / "native"), "-B", str(tmp_path), "-DRECALL_SANITIZE=ON"],
        check=True,
    )
    subprocess.run(["cmake", "--build", str(tmp_path)], check=True)
    done = subprocess.run([tmp_path / "sanitize"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "baseline: " in done.stdout
