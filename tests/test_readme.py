"""The README: each of its commands is run."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT, Smoke, recall

README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """The README's blocks of code in a language."""
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


COMMANDS = [line for block in blocks("sh") for line in block.splitlines() if line.strip()]
TRAINING_IS_SHORTENED = ["--schedule.steps", "50", "--contexts.stride", "32", "--quiet"]


@pytest.mark.parametrize("line", [line for line in COMMANDS if line.startswith("recall ")])
def test_the_command_works_as_written(line: str, smoke: Smoke) -> None:
    words = shlex.split(line, comments=True)[1:]
    if words[0] in ("train", "sweep"):
        words += [*TRAINING_IS_SHORTENED, "--store", str(smoke.store.parent / "trained")]
    done = recall(*words, cwd=smoke.store.parent)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_make_assignment_ends_with_the_report(smoke: Smoke, tmp_path: Path) -> None:
    """At the smoke scale and from its records; the default scale takes 20 minutes and more."""
    assert any(line.startswith("make assignment ") for line in COMMANDS)
    folders = f"--store {smoke.store} --out {tmp_path}"
    done = subprocess.run(
        ["make", "--no-print-directory", "assignment", f"ARGS=--scale smoke {folders}"],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if not k.startswith("MAKE")},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(tmp_path / "index.html")


def test_make_test_is_what_continuous_integration_calls() -> None:
    assert any(line.startswith("make test ") for line in COMMANDS)
    assert "\nmake test\n" in (ROOT / ".ci" / "run").read_text()


def test_every_command_is_covered_above() -> None:
    first_words = {line.split()[0] for line in COMMANDS}
    assert first_words == {"make", "recall"}
    assert {line.split()[1] for line in COMMANDS if line.startswith("make")} == {
        "assignment",
        "test",
    }


@pytest.mark.parametrize("code", blocks("python"))
def test_the_python_of_the_readme_runs(code: str) -> None:
    names: dict[str, object] = {}
    exec(code, names)
    assert tuple(names["logits"].shape) == (64, 16)  # type: ignore[attr-defined]


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_links_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text())
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
