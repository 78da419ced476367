"""Tasks and mixers of other packages: installed ones, imported ones, and those of a notebook."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ROOT, Made
from torch import nn

from recall_arena.cli import main
from recall_arena.config import frozen
from recall_arena.evaluation import Contexts
from recall_arena.executors import Failed, execute_all
from recall_arena.mixers import MIXERS, Attention, Mamba, MixerOptions
from recall_arena.mixers.text import write_mixer
from recall_arena.model import ModelSpec, SequenceModel
from recall_arena.records import Store
from recall_arena.registry import Registry
from recall_arena.runs import Checks, Run, from_json
from recall_arena.tasks import MQAR, TASKS, AssociativeRecall, Task
from recall_arena.training import Schedule

TINY = (
    *("--schedule.steps", "4", "--schedule.context", "4", "--checks.sequences", "8"),
    *("--contexts", "4,6", "--contexts.sequences", "8", "--quiet"),
)


@pytest.fixture(scope="session")
def site(made_once: Made) -> Path:
    """A folder into which pip has installed the package in `outside`, with its entry points."""
    words = ("install", "--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--target")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *words]
    source = str(ROOT / "tests" / "outside")
    return made_once("site", lambda to: subprocess.run([*command, str(to), source], check=True))


@pytest.fixture(autouse=True)
def nothing_stays_known() -> Iterator[None]:
    """What a test adds or loads is forgotten after it."""
    before = [(registry, dict(registry)) for registry in (MIXERS, TASKS)]
    modules = set(sys.modules)
    yield
    for registry, known in before:
        for name in registry.keys() - known.keys():
            del registry[name]
    for name in set(sys.modules) - modules:
        if name.partition(".")[0] in ("leaky_arena", "mine"):
            del sys.modules[name]


@pytest.fixture
def installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(site))
    return site


MINE = """
import sys
sys.path.append({site!r})
from leaky_arena.mixer import Leaky
from leaky_arena.task import FirstToken
from recall_arena.mixers import MIXERS
from recall_arena.tasks import TASKS

MIXERS["my-leaky"] = Leaky()
TASKS["my-first"] = FirstToken
"""


def run_with(task: Task, mixer: MixerOptions, seed: int = 0) -> Run:
    return Run(
        task=task,
        model=ModelSpec((mixer, Attention()), vocabulary=task.vocabulary),
        schedule=Schedule(rate=0.01, steps=3, context=4, batch=2, warmup=0),
        checks=Checks(sequences=8),
        contexts=Contexts(first=4, last=5, sequences=8),
        seed=seed,
    )


# Installed


def test_an_installed_package_is_found_by_name_and_loaded_only_then(installed: Path) -> None:
    assert {"leaky", "broken"} <= set(MIXERS.names())
    assert "first-token" in TASKS.names()
    assert "leaky_arena" not in sys.modules

    spec = ModelSpec(("leaky(keep=0.50)", "mamba"))
    assert spec.layers == ("leaky(keep=0.5)", "mamba")
    assert write_mixer(spec.mixers[0]) == "leaky(keep=0.5)"
    assert SequenceModel(spec).state_size(64) == 8 + 16 * 19


def test_a_class_of_an_installed_package_finds_its_own_name(installed: Path) -> None:
    from leaky_arena.mixer import Leaky
    from leaky_arena.task import FirstToken

    run = run_with(FirstToken(copies=2), Leaky(keep=0.25))
    assert run.to_json()["task"] == {"kind": "first-token", "vocabulary": 8, "copies": 2}
    assert run.model.layers == ("leaky(keep=0.25)", "attention")
    assert from_json(run.to_json()) == run


def test_one_that_cannot_be_loaded_is_named_and_hides_nothing(
    installed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match=r"leaky_arena\.missing:Broken cannot be used \(Module"):
        ModelSpec(("broken",))
    assert main(["models"]) == 1
    said = capsys.readouterr()
    assert "keep" in said.out
    assert "the share of the state that is left" in said.out
    assert said.err.count("leaky_arena.missing") == 2


def test_train_evaluate_and_verify_know_what_is_installed(
    installed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ("--store", str(tmp_path))
    words = ("train", "--task", "first-token", "--task.copies", "2", "--model", "leaky(keep=0.5)")
    assert main([*words, *TINY, *store, "--json"]) == 0
    address = json.loads(capsys.readouterr().out)["address"]
    made = Store(tmp_path).read(address).provenance
    assert made.modules == ["leaky_arena.mixer", "leaky_arena.task"]
    assert made.versions["leaky-arena"] == "1.2"
    assert main(["evaluate", address, "--contexts", "9", *store]) == 0
    assert main(["verify", address, "--quiet", *store]) == 0
    assert "identical" in capsys.readouterr().out


@pytest.mark.whole
def test_a_record_of_what_is_not_known_is_named_with_the_import_and_hides_nothing(
    installed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store = ("--store", str(tmp_path))
    assert main(["train", "--model", "leaky", *TINY, *store, "--json"]) == 0
    foreign = json.loads(capsys.readouterr().out)["address"]
    assert main(["train", "--model", "attention", *TINY, *store, "--json"]) == 0
    own = json.loads(capsys.readouterr().out)["address"]
    del MIXERS["leaky"]
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place != str(installed)])

    assert main(["evaluate", foreign, *store]) == 2
    said = capsys.readouterr().err
    assert "no mixer 'leaky'" in said
    assert "it was made with leaky_arena.mixer: try --import leaky_arena.mixer" in said
    assert main(["evaluate", own, *store]) == 0
    capsys.readouterr()
    assert main(["runs", "ls", *store, "--json"]) == 0
    assert {row["model"] for row in json.loads(capsys.readouterr().out)} == {"leaky", "attention"}
    assert main(["runs", "show", foreign, *store]) == 0
    assert "leaky_arena.mixer" in capsys.readouterr().out


# Imported


@pytest.fixture
def mine(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with a module that adds a task and a mixer."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "mine.py").write_text(MINE.format(site=str(site)))
    return tmp_path


def test_a_module_of_the_current_folder_is_imported_by_every_command(
    mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "--task", "my-first", "--model", "my-leaky(keep=0.5), mamba"]
    assert main([*words, "--import", "mine", *TINY, "--json"]) == 0
    address = json.loads(capsys.readouterr().out)["address"]
    for command in ("evaluate --contexts 7", "runs show", "verify --quiet"):
        assert main([*command.split(), address, "--import=mine"]) == 0
    assert main(["runs", "ls", "--import", "mine"]) == 0
    with pytest.raises(SystemExit):
        main(["train", "--import", "mine", "--task", "my-first", "--help"])
    assert "how many tokens at the beginning" in capsys.readouterr().out


@pytest.mark.whole
def test_the_rates_of_ones_own_task_are_searched_and_drawn(
    mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In two worker processes, over a field of the task too; and the mixer is checked."""
    mine_too = ("--import", "mine")
    words = ("sweep", "--task", "my-first", "--model", "my-leaky, mamba", "--store", "own")
    grid = ("--grid", "rate=1e-3,1e-2", "--grid", "copies=1,2", "--jobs", "2", "--json")
    assert main([*words, *grid, *mine_too, *TINY]) == 0
    (choice,) = json.loads(capsys.readouterr().out)
    assert set(choice["chosen"]) == {"schedule.rate", "task.copies"}
    drawn = ("plot", "own", "--x", "rate", "--y", "validation", "--colour", "task.copies")
    assert main([*drawn, "--out", "own.svg", *mine_too]) == 0
    assert {"copies = 1", "copies = 2"} <= set(
        re.findall(r">([^<]+)</text>", Path("own.svg").read_text())
    )
    assert main(["check-mixer", "leaky_arena.mixer:Leaky"]) == 0


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        (None, "mine cannot be imported: No module named 'mine'"),
        ("def", "mine cannot be imported: "),
        ("from recall_arena.mixers import MIXERS, Mamba; MIXERS['mamba'] = Mamba()", "its own"),
    ],
)
def test_a_module_that_cannot_be_imported_is_a_mistake(
    content: str | None,
    hint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    if content is not None:
        (tmp_path / "mine.py").write_text(content)
    assert main(["train", "--import", "mine"]) == 2
    said = capsys.readouterr().err
    assert hint.replace("its own", "of its own") in said
    assert said.count("\n") == 1


# Other processes


def said_by(script: str, folder: Path) -> str:
    """What a script prints that is run in a folder, where nothing goes wrong."""
    (folder / "script.py").write_text(script)
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests")},
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    return done.stdout


@pytest.mark.whole
def test_workers_know_what_the_parent_was_given(mine: Path) -> None:
    """In a process of its own, so that the workers' server starts without the package."""
    script = """
from pathlib import Path
import mine
from test_outside import run_with
from recall_arena.executors import execute_all
from recall_arena.records import Store

if __name__ == "__main__":
    runs = [run_with(mine.FirstToken(), mine.Leaky(keep=0.5), seed) for seed in (0, 1)]
    for event in execute_all(runs, Store(Path("runs")), jobs=2):
        print(event)
"""
    said = said_by(script, mine)
    assert said.count("Finished") == 2
    names = {tuple(record.run["model"]["layers"]) for record in Store(mine / "runs")}
    assert names == {("my-leaky(keep=0.5)", "attention")}


NOTEBOOK = """
from pathlib import Path
from recall_arena.config import frozen
from recall_arena.executors import execute_all
from recall_arena.mixers import Mamba
from recall_arena.records import Store
from recall_arena.tasks import TASKS, AssociativeRecall
from test_outside import run_with

@frozen
class Mine(AssociativeRecall):
    pass

TASKS["mine"] = Mine
runs = [run_with(Mine(), Mamba(), seed) for seed in (0, 1)]
try:
    execute_all(runs, Store(Path("runs")), jobs=2)
except ValueError as error:
    print(error)
print(len(list(execute_all(runs, Store(Path("runs"))))))
"""


@pytest.mark.whole
def test_a_class_of_a_notebook_works_with_one_job_and_is_refused_with_more(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", NOTEBOOK],  # as in a notebook, __main__ has no file
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests")},
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    refusal, finished = done.stdout.splitlines()
    assert refusal.startswith("Mine is defined in a notebook or at a prompt, where other processes")
    assert refusal.endswith("such as mine.py, and import it from there; or run with one job")
    assert int(finished) >= 2
    assert len(Store(tmp_path / "runs").addresses()) == 2


def test_a_class_of_a_function_is_refused_before_any_work(tmp_path: Path) -> None:
    @frozen
    class Inner(AssociativeRecall):
        pass

    TASKS["inner"] = Inner
    runs = [run_with(Inner(), Mamba(), seed) for seed in (0, 1)]
    with pytest.raises(ValueError, match="Inner is defined inside a function"):
        execute_all(runs, Store(tmp_path / "runs"), jobs=2)
    assert not (tmp_path / "runs").exists()


def test_a_class_of_a_script_is_refused_where_other_machines_execute(tmp_path: Path) -> None:
    script = NOTEBOOK.partition("try:")[0] + (
        "try:\n    execute_all(runs, Store(Path('runs')), executor='ray')\n"
        "except ValueError as error:\n    print(error)\n"
    )
    said = said_by(script, tmp_path)
    assert said.startswith("Mine is defined in the script that is run, where other process")


# What may be added


@frozen
class Fine(MixerOptions):
    words: str = "usual"

    def build(self, width: int) -> nn.Module:
        return Mamba().build(width)


class Undecorated(Fine):
    pass


@frozen
class Demanding(MixerOptions):
    size: int

    def build(self, width: int) -> nn.Module:
        return Mamba().build(width)


@pytest.mark.parametrize(
    ("registry", "name", "value", "hint"),
    [
        (MIXERS, "mamba", Fine(), "recall-arena has a mixer 'mamba' of its own"),
        (MIXERS, "hybrid-a", Fine(), "has the name of a model"),
        (MIXERS, "wide mamba", Fine(), "is no name of a mixer"),
        (MIXERS, "mamba32", Mamba(state=32), "must stand for Mamba with all its defaults"),
        (MIXERS, "other", Mamba(), "Mamba is called 'mamba', got 'other'"),
        (MIXERS, "other", Undecorated(), "must inherit MixerOptions, be decorated"),
        (MIXERS, "other", Demanding(size=2), "and have a default for every option"),
        (MIXERS, "other", nn.Linear(2, 2), "Linear must inherit MixerOptions"),
        (TASKS, "mqar", MQAR, "recall-arena has a task 'mqar' of its own"),
        (TASKS, "other", MQAR, "MQAR is called 'mqar', got 'other'"),
        (TASKS, "other", MQAR(), "must be a class that inherits Task"),
        (TASKS, "other", Task, "must be a class that inherits Task"),
    ],
)
def test_what_would_not_have_one_spelling_is_refused(
    registry: Registry[object], name: str, value: object, hint: str
) -> None:
    before = dict(registry)
    with pytest.raises(ValueError, match=hint):
        registry[name] = value
    assert dict(registry) == before


def test_an_option_that_text_cannot_hold_is_refused() -> None:
    MIXERS["fine"] = Fine()
    assert ModelSpec((Fine(words="other"),)).layers == ("fine(words=other)",)
    for words in ("a,b", "3", "None", "a)", " a"):
        with pytest.raises(ValueError, match="would not be read as what it was"):
            ModelSpec((Fine(words=words),))


def test_a_class_without_a_name_is_told_how_to_get_one() -> None:
    with pytest.raises(ValueError, match=r"Fine has no name: an entry point of recall_arena\.mix"):
        ModelSpec((Fine(),))


def test_a_run_that_no_record_could_hold_is_refused_before_it_is_trained(tmp_path: Path) -> None:
    @frozen
    class Vague(MQAR):
        queries: float = 0.5

    TASKS["vague"] = Vague
    run = run_with(Vague(vocabulary=8, pairs=1), Mamba())
    run = replace(run, schedule=replace(run.schedule, context=8))
    (event,) = execute_all([run], Store(tmp_path))
    assert isinstance(event, Failed)
    assert "task.queries" in event.reason
