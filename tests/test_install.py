"""The first command on other people's machines: any Python, any compiler, or none."""

import ctypes
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from conftest import ROOT

pytestmark = pytest.mark.whole

slow = pytest.mark.slow
CORE = ("test_task.py", "test_mixers.py", "test_model.py", "test_training.py", "test_evaluation.py")
NOT_COPIED = (".venv", ".git", "build", "results", "runs", "report", "*.so")
WITHOUT_AVX512 = {"baseline", "avx2"}
INSTRUCTION_SETS = WITHOUT_AVX512 | {"avx512"}

Done = "subprocess.CompletedProcess[str]"


def program(path: Path, *lines: str) -> Path:
    """A shell script at this place."""
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(("#!/bin/sh", *lines, "")))
    path.chmod(0o755)
    return path


def source(folder: Path) -> Path:
    """A copy of the sources, in which a build leaves its files."""
    shutil.copytree(ROOT, folder / "source", ignore=shutil.ignore_patterns(*NOT_COPIED))
    return folder / "source"


# Which Python


def environment_made_by_make(folder: Path, *words: str, path: str) -> Done:
    """`make .venv/bin/python` in a folder; the first step of every other target."""
    return subprocess.run(
        [shutil.which("make") or "make", "-f", str(ROOT / "Makefile"), ".venv/bin/python", *words],
        cwd=folder,
        env={"PATH": path},
        capture_output=True,
        text=True,
    )


def test_make_takes_the_first_python_that_runs_and_is_new_enough(tmp_path: Path) -> None:
    program(tmp_path / "bin/python3.13", "echo 'pyenv: python3.13: command not found'", "exit 127")
    program(tmp_path / "bin/python3.12", f'exec {sys.executable} "$@"')
    program(tmp_path / "bin/python3.11", "echo never called >&2", "exit 3")

    done = environment_made_by_make(tmp_path, path=str(tmp_path / "bin"))

    assert done.returncode == 0, done.stderr
    assert (tmp_path / ".venv/bin/pip").exists()


@pytest.mark.parametrize("words", [[], ["PYTHON=python3.12"]])
def test_without_such_a_python_make_says_what_to_install(tmp_path: Path, words: list[str]) -> None:
    program(tmp_path / "bin/python3.12", 'exit 1  # as "sys.exit(sys.version_info < (3, 11))"')

    done = environment_made_by_make(tmp_path, *words, path=str(tmp_path / "bin"))

    assert done.returncode == 2
    assert "Found no Python >= 3.11" in done.stderr
    assert "apt install python3 python3-venv" in done.stderr
    assert not (tmp_path / ".venv").exists()


def python(version: str) -> str:
    """Where this Python is, also if pyenv hides it; skips the test without it."""
    where = [f"python{version}", "-c", "import ensurepip, sys; print(sys.executable)"]
    try:
        done = subprocess.run(
            where, env={**os.environ, "PYENV_VERSION": version}, capture_output=True, text=True
        )
    except FileNotFoundError:
        pytest.skip(f"there is no Python {version} here")
    if done.returncode != 0:
        pytest.skip(f"there is no Python {version} here")
    return done.stdout.strip()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as this Python builds it."""
    folder = tmp_path_factory.mktemp("wheel")
    words = ("wheel", "--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", str(folder))
    subprocess.run([sys.executable, "-m", "pip", *words, str(source(folder))], check=True)
    (built,) = folder.glob("*.whl")
    return built


@slow
@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
def test_one_wheel_serves_every_python(version: str, wheel: Path, tmp_path: Path) -> None:
    """Its sources compile without a warning, and its kernels load."""
    words = ("install", "--no-deps", "--no-index", "--quiet", "--target", str(tmp_path))
    subprocess.run([python(version), "-m", "pip", *words, str(wheel)], check=True)
    package = tmp_path / "recall_arena"
    load = (
        "import ctypes, recall_arena.zoo;"
        f"library = ctypes.CDLL({str(package / '_recall_kernels.so')!r});"
        "name = library.recall_instruction_set; name.restype = ctypes.c_char_p; print(name())"
    )
    command = [python(version), "-W", "error"]
    subprocess.run([*command, "-m", "compileall", "-q", "-f", str(package)], check=True)
    told = subprocess.run([*command, "-c", load], cwd=tmp_path, capture_output=True, text=True)

    assert "-py3-none-" in wheel.name
    assert told.stdout.strip() in {str(name.encode()) for name in INSTRUCTION_SETS}, told.stderr


# Which compiler


def built(folder: Path, refused: tuple[str, ...]) -> tuple[ctypes.CDLL, set[str]]:
    """The library by a compiler that refuses flags, and the instruction sets that it has."""
    listed = "|".join(refused) or "none"
    refusal = f'case "$word" in {listed}) echo "unrecognized $word" >&2; exit 1;; esac'
    compiler = program(folder / "c++", f"for word; do {refusal}; done", 'exec g++ "$@"')
    options = ("-DCMAKE_BUILD_TYPE=Debug", f"-DCMAKE_CXX_COMPILER={compiler}")
    subprocess.run(["cmake", "-S", ROOT / "native", "-B", folder, *options], check=True)
    subprocess.run(["cmake", "--build", folder], check=True)
    library = folder / "_recall_kernels.so"
    symbols = library.read_bytes()
    names = {n for n in INSTRUCTION_SETS if f"6recall{len(n)}{n}7kernels".encode() in symbols}
    return ctypes.CDLL(str(library)), names


@slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")
@pytest.mark.skipif("x86" not in sysconfig.get_platform(), reason="another processor's sets")
@pytest.mark.parametrize(
    ("refused", "left"),
    [
        (("-mavx512f",), WITHOUT_AVX512),
        (("-mavx512dq",), WITHOUT_AVX512),
        (("-mavx512f", "-mfma"), {"baseline"}),
        (("-mprefer-vector-width=512", "-mno-avx", "-mno-avx512f"), INSTRUCTION_SETS),
        (("-fno-math-errno", "-ffp-contract=fast", "-Wno-psabi", "-Wall"), INSTRUCTION_SETS),
    ],
    ids=lambda words: " ".join(sorted(words)),
)
def test_a_flag_that_the_compiler_refuses_costs_its_instruction_set_at_most(
    refused: tuple[str, ...], left: set[str], tmp_path: Path
) -> None:
    library, names = built(tmp_path, ("-O3", *refused))  # without -O3 it is built in seconds
    assert names == left
    assert library.recall_choose_instruction_set(b"baseline") == 0
    for absent in INSTRUCTION_SETS - left:
        assert library.recall_choose_instruction_set(absent.encode()) == 1


@slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")
def test_flags_of_the_environment_leave_the_instruction_sets_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXXFLAGS", "-march=native")
    _, names = built(tmp_path, ("-O3",))
    assert "baseline" in names


@pytest.mark.parametrize("standard", ["-std=c++17", "-std=gnu++17"])
def test_a_compiler_that_is_too_old_is_no_compiler(standard: str, tmp_path: Path) -> None:
    refusal = f'case "$*" in *{standard}*) exit 1;; esac'
    compiler = program(tmp_path / "c++", refusal, 'exec g++ "$@"')
    words = ["cmake", "-S", str(ROOT / "native"), "-B", str(tmp_path)]
    done = subprocess.run(
        [*words, f"-DCMAKE_CXX_COMPILER={compiler}"], capture_output=True, text=True
    )
    assert done.returncode == 0
    left_out = "the native kernels are left out" in " ".join(done.stderr.split())
    assert left_out == (standard == "-std=c++17")


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
    environment = {k: v for k, v in os.environ.items() if k not in ("CC", "CXX", "CFLAGS")}
    words = ("-m", "pip", "install", "--no-deps", "--no-build-isolation", "--quiet")
    subprocess.run(
        [sys.executable, *words, "--target", str(folder / "site"), str(source(folder))],
        env={**environment, "PATH": str(programs)},
        check=True,
    )
    return folder / "site"


def without_the_editable_one(installed: Path, *words: str) -> Done:
    """Python with the folder in front, and no .pth file that leads to the checkout."""
    site = sysconfig.get_paths()["purelib"]
    return subprocess.run(
        [sys.executable, "-S", *words],
        env={**os.environ, "PYTHONPATH": f"{installed}{os.pathsep}{site}"},
        cwd=installed,
        capture_output=True,
        text=True,
    )


@slow
def test_without_a_compiler_it_installs_and_the_doctor_says_why_it_is_slower(
    installed: Path,
) -> None:
    done = without_the_editable_one(installed, "-m", "recall_arena", "doctor")
    assert done.returncode == 0, done.stderr
    assert "built without a C++ compiler" in done.stdout


@slow
def test_without_a_compiler_the_core_of_the_tests_passes(installed: Path) -> None:
    tests = [str(ROOT / "tests" / name) for name in CORE]
    place = ("-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT), "-p", "no:cacheprovider")
    done = without_the_editable_one(installed, "-m", "pytest", "-q", *place, *tests)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "failed" not in done.stdout


@slow
def test_the_kernels_pass_under_the_sanitizers(tmp_path: Path) -> None:
    """Reads and writes beyond a buffer, undefined behaviour and leaks end the program."""
    subprocess.run(
        ["cmake", "-S", str(ROOT / "native"), "-B", str(tmp_path), "-DRECALL_SANITIZE=ON"],
        check=True,
    )
    subprocess.run(["cmake", "--build", str(tmp_path), "--parallel"], check=True)
    done = subprocess.run([tmp_path / "sanitize"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "baseline: " in done.stdout
