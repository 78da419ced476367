"""A trained model leaves for other libraries, and theirs are tested, from the command line."""

import json

import pytest

from recall_arena.cli import main
from recall_arena.layouts import load_pretrained, save_pretrained
from recall_arena.model import SequenceModel, named

SHORT = ["--schedule.steps", "3", "--schedule.context", "6", "--schedule.batch", "4", "--quiet"]
TESTED = ["--contexts.last", "6", "--contexts.sequences", "20"]
TRAIN = ["train", *SHORT, *TESTED, "--checks.every", "3", "--checks.sequences", "8", "--json"]


def trained(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main([*TRAIN, *words]) == 0
    return str(json.loads(capsys.readouterr().out)["address"])


def test_a_run_is_saved_for_others_and_tested_from_there(tmp_path, capsys):
    store, out = ["--store", str(tmp_path / "runs")], str(tmp_path / "out")
    address = trained(capsys, "--model", "mamba; norm=rms", *store)
    assert main(["runs", "save", address, out, *store]) == 0
    assert address in capsys.readouterr().out
    assert load_pretrained(out).spec.layers == ("mamba", "mamba")

    said = []
    for more in ([], ["--weights", out]):
        assert main(["evaluate", address, *TESTED, *store, *more, "--json"]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]


def test_what_cannot_be_saved_or_tested_is_said_in_a_line(tmp_path, capsys):
    store, out = ["--store", str(tmp_path / "runs")], str(tmp_path / "out")
    address = trained(capsys, "--model", "mamba, attention; norm=rms", *store)
    assert main(["runs", "save", address, out, *store]) == 2
    assert "layer 1 is attention" in capsys.readouterr().err
    assert main(["runs", "save", address, out, "--layout", "mamba-ssm", *store]) == 0

    save_pretrained(SequenceModel(named("mamba", vocabulary=8)), out, "mamba-ssm")
    assert main(["evaluate", address, "--weights", out, *store]) == 2
    assert "knows 8 tokens, the run's model 16" in capsys.readouterr().err
    assert main(["evaluate", address, "--weights", str(tmp_path), *store]) == 2
    assert "config.json" in capsys.readouterr().err
