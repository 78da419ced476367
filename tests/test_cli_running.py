"""How commands execute runs: longer ones, with too little time, and with one that fails."""

import json
from pathlib import Path

import pytest

from recall_arena.checkpoints import read_tensors
from recall_arena.cli import main
from recall_arena.cli.progress import Pace
from recall_arena.execution import Progress
from recall_arena.executors import Advanced
from recall_arena.records import Store, snapshot_path, weights_path
from recall_arena.runs import from_json

TINY = (
    *("--schedule.decay", "0", "--schedule.warmup", "0", "--schedule.context", "8"),
    *("--schedule.batch", "4", "--checks.every", "10", "--checks.sequences", "20"),
    *("--contexts", "4,8", "--quiet"),
)


def train(store: Path, steps: int, *more: str) -> tuple[str, ...]:
    return ("train", *TINY, "--schedule.steps", str(steps), "--store", str(store), *more)


def told(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    read: dict[str, object] = json.loads(capsys.readouterr().out)
    return read


def test_a_run_is_extended_by_steps_and_by_lengths(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*train(tmp_path, 20), "--json"]) == 0
    first = told(capsys)["address"]
    on = ("--store", str(tmp_path), "--quiet", "--json")
    assert main(["extend", str(first), "--steps", "40", *on]) == 0
    longer = told(capsys)
    assert longer["steps"] == 40
    assert main(["extend", str(longer["address"]), "--contexts", "4,16,32", *on]) == 0
    tested = told(capsys)
    assert [row["context"] for row in tested["accuracy"]] == [4, 16, 32]  # type: ignore[attr-defined]

    assert main([*train(tmp_path / "at once", 40), "--json"]) == 0
    at_once = told(capsys)
    assert longer["accuracy"] == at_once["accuracy"]
    run = from_json(Store(tmp_path).read(str(tested["address"])).run)
    assert run.extends is not None
    assert run.extends.extends is not None
    assert run.extends.extends.address == first

    assert main(["runs", "ls", "--store", str(tmp_path), "--json"]) == 0
    assert main(["evaluate", str(tested["address"]), "--contexts", "8", *on[:2]]) == 0
    capsys.readouterr()
    assert main(["verify", "--store", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("identical") == 3

    assert main(["runs", "rm", str(first), "--yes", "--store", str(tmp_path)]) == 0
    assert not [path for path in tmp_path.rglob(f"*{first}*") if path.is_file()]


@pytest.mark.parametrize("fall", [(), ("--schedule.decay-steps", "4")])
def test_a_new_decay_counts_whatever_the_fall_was(
    fall: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*train(tmp_path, 20, *fall), "--json"]) == 0
    first = str(told(capsys)["address"])
    on = ("--store", str(tmp_path), "--quiet", "--json")
    assert main(["extend", first, "--steps", "40", "--decay", "0.5", *on]) == 0
    run = from_json(Store(tmp_path).read(str(told(capsys)["address"])).run)
    assert run.schedule.falling == 20


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "say how far: --steps, or --contexts"),
        (("--steps", "10"), "steps must be at least 20"),
        (("--contexts", "1"), "--contexts must be at least 2"),
        (("--steps", "40", "--threads", "0"), "--threads must be in 1..1024, got 0"),
    ],
)
def test_what_cannot_be_extended_is_refused(
    words: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*train(tmp_path, 20), "--json"]) == 0
    address = str(told(capsys)["address"])
    assert main(["extend", address, *words, "--store", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


def test_learned_positions_that_do_not_reach_are_found_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ("--model", "transformer-learned", "--json")
    assert main([*train(tmp_path, 10), *model]) == 0
    address = str(told(capsys)["address"])
    assert main(["extend", address, "--contexts", "9", "--store", str(tmp_path)]) == 2
    assert "learned positions reach 8 tokens before the query" in capsys.readouterr().err


@pytest.mark.whole
def test_a_time_limit_ends_a_command_which_goes_on_when_it_is_called_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (*train(tmp_path, 2000), "--schedule.batch", "64", "--checks.running", "1000")
    assert main([*words, "--time-limit", "0.3"]) == 1
    assert "1 runs are not finished; the same command goes on" in capsys.readouterr().err
    assert list(Store(tmp_path)) == []
    assert [path.suffix for path in (tmp_path / "unfinished").iterdir()].count(".safetensors") == 1
    assert main([*words, "--json"]) == 0
    assert told(capsys)["steps"] == 2000


@pytest.mark.whole
def test_weights_of_a_finished_run_come_over_several_calls(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each goes on from the one before, and none says that weights are there before they are."""
    words = (*train(tmp_path, 2000), "--schedule.batch", "64", "--checks.running", "1000")
    assert main([*words, "--no-keep-weights", "--json"]) == 0
    address = str(told(capsys)["address"])
    done = []
    for _ in range(2):
        assert main([*words, "--time-limit", "0.3"]) == 1
        assert "1 runs are not finished; the same command goes on" in capsys.readouterr().err
        assert not weights_path(tmp_path, address).exists()
        note, _ = read_tensors(snapshot_path(tmp_path, address))
        done.append(json.loads((note or "").partition(" ")[2])["numbers"]["done"])
    assert 0 < done[0] < done[1] < 2000
    assert main([*words, "--json"]) == 0
    assert told(capsys)["address"] == address
    assert weights_path(tmp_path, address).exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--time-limit", "-1"), "--time-limit must be at least 0, got -1.0"),
        (("--time-limit", "nan"), "--time-limit must be at least 0, got nan"),
        (("--snapshot-every", "-1"), "--snapshot-every must be at least 0, got -1.0"),
        (("--executor", "lokal"), "no executor 'lokal'; did you mean 'local'?"),
    ],
)
def test_ways_of_executing_that_cannot_be_meant_are_refused(
    words: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*train(tmp_path, 10), *words]) == 2
    assert message in capsys.readouterr().err
    assert list(Store(tmp_path)) == []


FAILING = """
import torch
from recall_arena.config import frozen
from recall_arena.mixers import MIXERS, Mixer, MixerOptions

class Broken(Mixer):
    def forward(self, x, last=False):
        raise RuntimeError("it is broken")

    def state_size(self, context):
        return 0

@frozen
class BrokenOptions(MixerOptions):
    def build(self, width):
        return Broken()

MIXERS["broken"] = BrokenOptions()
"""


def test_with_fail_fast_nothing_is_begun_after_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "failing_mixer.py").write_text(FAILING)
    grid = ("sweep", *TINY, "--schedule.steps", "10", "--import", "failing_mixer", "--jobs", "1")
    words = (*grid, "--grid", "model=broken|mamba", "--store", str(tmp_path / "runs"))
    assert main([*words, "--fail-fast"]) == 1
    assert list(Store(tmp_path / "runs")) == []
    assert main(words) == 1
    assert len(list(Store(tmp_path / "runs"))) == 1
    assert "failed: RuntimeError: it is broken" in capsys.readouterr().err


ONCE = FAILING.replace(
    'raise RuntimeError("it is broken")',
    """if not FAILED.exists():
            FAILED.touch()
            raise RuntimeError("it is broken")
        return x[:, -1] if last else x""",
).replace("import torch\n", "import torch\nfrom pathlib import Path\nFAILED = Path('failed')\n")


def test_with_retry_failed_a_run_that_failed_is_tried_once_more_after_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "fails_once.py").write_text(ONCE)
    grid = ("sweep", *TINY, "--schedule.steps", "10", "--import", "fails_once", "--jobs", "1")
    assert main([*grid, "--grid", "model=broken|mamba", "--retry-failed"]) == 0
    told = capsys.readouterr().err.splitlines()
    assert "failed: RuntimeError: it is broken" in told[0]
    assert told[1:] == ["recall: 1 of 2 runs failed; trying them once more"]
    store = Store(tmp_path / "runs")
    written = {
        record.run["model"]["layers"][0]: (tmp_path / "runs" / f"{record.address}.json").stat()
        for record in store
    }
    assert written["broken"].st_mtime_ns > written["mamba"].st_mtime_ns


def test_a_run_that_fails_twice_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "fails_always.py").write_text(FAILING)
    words = ("train", *TINY, "--import", "fails_always", "--model", "broken", "--retry-failed")
    assert main([*words, "--store", str(tmp_path / "runs")]) == 1
    assert capsys.readouterr().err.count("failed: RuntimeError: it is broken") == 2


def test_the_time_left_counts_what_was_done_since_the_command_began(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    pace = Pace(2)
    assert str(pace) == "0 of 2 runs done"
    pace.advance(Advanced("a", Progress(500, 1000, 0.1)))  # it goes on from a snapshot
    assert "left" not in str(pace)
    now[0] += 90
    pace.advance(Advanced("a", Progress(600, 1000, 0.1)))
    # a tenth of 0.9 runs took 90 s, so the rest of two runs, 1.46, takes 1,460 s
    assert str(pace) == "0 of 2 runs done, at most 24 min left"
    pace.end("a")
    pace.end("b")
    assert str(pace) == "2 of 2 runs done"
