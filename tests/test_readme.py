"""The README: each of its commands is run."""

import json
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, SMOKE, Smoke, recall

from recall_arena.records import Store

pytestmark = pytest.mark.whole

README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """The README's blocks of code in a language."""
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


COMMANDS = [line for block in blocks("sh") for line in block.splitlines() if line.strip()]
OWN_QUESTION = [line for line in COMMANDS if {"mine", "search"} & {*line.split()}]
(STUDY,) = [line for line in COMMANDS if line.startswith("recall study run ")]
(REPORT,) = [line for line in COMMANDS if line.startswith("recall report ")]
OTHERS = [*OWN_QUESTION, STUDY, REPORT]
BY_THEMSELVES = [line for line in COMMANDS if line[:7] == "recall " and line not in OTHERS]
SHORTENED = [
    *("--schedule.steps", "20", "--checks.sequences", "100"),
    *("--contexts.stride", "32", "--contexts.sequences", "100", "--quiet"),
]


def words_of(line: str) -> list[str]:
    """A command as it stands, but for the time that it takes to train."""
    words = shlex.split(line, comments=True)[1:]
    return words + SHORTENED if words[0] in ("train", "sweep") else words


@pytest.mark.parametrize("line", BY_THEMSELVES)
def test_the_command_works_as_written(line: str, smoke: Smoke) -> None:
    words = words_of(line)
    if words[0] == "train":
        words += ["--store", "trained"]  # the study's own store stays as it is
    done = recall(*words, cwd=smoke.store.parent)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_the_study_is_the_one_that_all_tests_share(smoke: Smoke) -> None:
    assert words_of(STUDY) == list(SMOKE)
    assert smoke.output.strip() == "report/index.html"


def test_the_report_is_rebuilt_as_written_and_to_the_byte(smoke: Smoke) -> None:
    before = {path: path.read_bytes() for path in smoke.report.rglob("*") if path.is_file()}
    done = recall(*words_of(REPORT), cwd=smoke.store.parent)
    assert done.returncode == 0, done.stderr
    assert {path: path.read_bytes() for path in before} == before


def test_make_assignment_ends_with_the_report(smoke: Smoke, tmp_path: Path) -> None:
    """Of a problem alone, from its records; all of the default scale takes 20 minutes and more."""
    assert any(line.startswith("make assignment ") for line in COMMANDS)
    folders = f"--store {smoke.store} --out {tmp_path}"
    done = subprocess.run(
        ["make", "--no-print-directory", "assignment", f"ARGS=--scale smoke --problem 2 {folders}"],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if not k.startswith("MAKE")},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(tmp_path / "index.html")
    page = (tmp_path / "index.html").read_text()
    assert "Problem 2" in page
    assert "Problem 1:" not in page
    assert "not all runs are finished" not in page


def test_make_test_is_what_continuous_integration_calls() -> None:
    assert {"test", "test-whole"} <= {line.split()[1] for line in COMMANDS}
    assert "\nmake test test-whole\n" in (ROOT / ".ci" / "run").read_text()


def test_every_command_is_covered_above() -> None:
    first_words = {line.split()[0] for line in COMMANDS}
    assert first_words == {"make", "recall"}
    assert {line.split()[1] for line in COMMANDS if line.startswith("make")} == {
        "assignment",
        "test",
        "test-whole",
    }


def test_a_question_of_ones_own_from_rates_to_attention(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search, two seeds, a plot and the trained model, by the README's own lines."""
    monkeypatch.chdir(tmp_path)
    search, seeds, plot, listing = OWN_QUESTION
    found = recall(*words_of(search), "--json", cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    (choice,) = json.loads(found.stdout)
    assert choice["chosen"]["schedule.rate"] in (1e-3, 3e-3, 1e-2)

    for line in (seeds, plot):
        done = recall(*words_of(line), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    said = (tmp_path / "mine.svg").read_text()
    ticks = {int(n) for n in re.findall(r">(\d+)</text>", said) if int(n) > 1}
    assert min(ticks) < 64 < max(ticks), "both sides of L"
    for record in Store(tmp_path / "mine"):
        assert record.outcome.contexts.at[0] < 64 < record.outcome.contexts.at[-1]

    listed = recall(*words_of(listing), "--json", cwd=tmp_path)
    runs = sorted(json.loads(listed.stdout), key=lambda run: run["seed"])
    assert [run["seed"] for run in runs] == [0, 1]
    assert {(run["task.vocabulary"], run["task.delay"], run["rate"]) for run in runs} == {
        (32, 3, 3e-3)
    }

    (code,) = blocks("python")
    names: dict[str, Any] = {}
    exec(code.replace("3f2a", runs[1]["address"][:6]), names)
    assert names["run"].seed == 1
    assert names["attention"]["weights"].shape == (8, 2, 65, 65)
    assert names["mamba"]["states"].shape[-1] == 32
    assert names["logits"].shape == (8, 32)


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_links_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text())
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
