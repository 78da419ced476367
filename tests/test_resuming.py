"""Runs that are broken off go on from where they were, and end with the same bits."""

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ended, started
from training_checks import finish, same

from recall_arena import atomic
from recall_arena.curriculum import Curriculum
from recall_arena.evaluation import Contexts
from recall_arena.execution import Execution
from recall_arena.executors import Finished, Noted, execute_all, here, sweep
from recall_arena.kernels import native
from recall_arena.model import ModelSpec, named
from recall_arena.records import Record, Store, end_path, lease_path, snapshot_path
from recall_arena.runs import Checks, Run, from_json
from recall_arena.snapshots import Unusable, restore_snapshot, save_snapshot
from recall_arena.tasks import AssociativeRecall, InductionHeads
from recall_arena.training import Schedule

PLAN = Schedule(rate=1e-2, steps=24, context=12, batch=4, warmup=3)
CHECKS = Checks(every=5, sequences=20)
TESTED = Contexts(first=4, last=12, stride=4, sequences=20)
GATED = Curriculum("gated", gate=0.1, stages=3)
RUNS = {
    "mamba": Run(AssociativeRecall(), named("mamba", width=8), PLAN, CHECKS, TESTED),
    "hybrid, trained embedding, lengths and weight decay": Run(
        AssociativeRecall(queries=4),
        ModelSpec(("mamba", "attention"), embedding="trained", mlp="gelu"),
        replace(PLAN, shortest=6, weight_decay=0.1, optimizer="adam"),
        replace(CHECKS, every=7),
        TESTED,
    ),
    "a gated curriculum": Run(
        AssociativeRecall(vocabulary=3),
        ModelSpec(("gated-delta",), vocabulary=3),
        replace(PLAN, curriculum=GATED),
        replace(CHECKS, every=2),
        TESTED,
    ),
    "solved early": Run(
        AssociativeRecall(vocabulary=2),
        ModelSpec(("attention",), vocabulary=2),
        PLAN,
        replace(CHECKS, every=2, solved=0.2, running=3),
        TESTED,
    ),
    "diverging": Run(
        AssociativeRecall(), named("mamba", width=8), replace(PLAN, rate=1e30), CHECKS, TESTED
    ),
    "many answers": Run(
        InductionHeads(train_on="all"), named("hybrid-a", width=8), PLAN, CHECKS, TESTED
    ),
}


def snapshots(store: Store) -> list[Path]:
    return sorted((store.folder / "unfinished").glob("*"))


def broken_off(run: Run, store: Store, news: int) -> None:
    """Execute a run, and give it up after so many events."""
    with closing(execute_all([run], store)) as events:
        for _ in itertools.islice(events, news):
            pass


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("first", [0, *(pytest.param(i, marks=pytest.mark.slow) for i in (1, 2))])
def test_a_state_at_any_step_leads_to_the_same_record(name: str, first: int) -> None:
    """Every third step: with each place between checks, in the rise of the rate and its fall."""
    run = RUNS[name]
    progress, whole, _ = finish(run)
    working = Execution(run)
    for taken, _ in enumerate(itertools.chain([None], working)):
        if taken % 3 != first:
            continue
        again = Execution(run)
        again.restore(working.state().copied())
        rest = list(again)
        assert [p.step for p in rest] == [p.step for p in progress[taken:]]
        assert same(again.record(), whole)
    assert same(working.record(), whole), "taking its state has changed it"


@pytest.mark.parametrize("name", RUNS)
def test_a_run_that_is_given_up_again_and_again_ends_as_if_it_had_not_been(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(here, "SECONDS_BETWEEN_NEWS", 0.0)
    run, store = RUNS[name], Store(tmp_path)
    for news in (1, 2, 1, 3):
        broken_off(run, store, news)
        assert run.address in store or len(snapshots(store)) == 2  # itself, and the lease's file
    assert not any(isinstance(event, Noted) for event in execute_all([run], store))
    assert same(store.read(run.address), finish(run)[1])
    assert snapshots(store) == []


def test_it_takes_no_step_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(here, "SECONDS_BETWEEN_NEWS", 0.0)
    run, store = RUNS["mamba"], Store(tmp_path)
    broken_off(run, store, 10)
    events = list(execute_all([run], store))
    assert events[0].progress.step == 11  # type: ignore[union-attr]


def test_a_record_of_many_parts_tells_the_time_of_all(tmp_path: Path) -> None:
    execution, again = Execution(RUNS["mamba"]), Execution(RUNS["mamba"])
    for _ in itertools.islice(execution, 20):
        pass
    again.restore(execution.state())
    before = again.record().cost.training_seconds
    list(again)
    assert again.record().cost.training_seconds > before > 0


def test_within_a_step_there_is_no_state(monkeypatch: pytest.MonkeyPatch) -> None:
    execution = Execution(RUNS["mamba"])
    working = iter(execution)
    next(working)

    def breaks(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(execution._training, "_loss_and_gradient", breaks)
    with pytest.raises(MemoryError):
        next(working)
    assert not execution.whole
    with pytest.raises(RuntimeError, match="a step is under way"):
        execution.state()


# What a snapshot must not be


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    execution = Execution(RUNS["mamba"])
    for _ in itertools.islice(execution, 11):
        pass
    path = snapshot_path(tmp_path, execution.run.address)
    save_snapshot(execution, path)
    return path


def untouched(execution: Execution) -> bool:
    return same(_ended(execution), finish(execution.run)[1])


def _ended(execution: Execution) -> Record:
    list(execution)
    return execution.record()


def test_a_snapshot_cut_anywhere_is_named_and_not_gone_on_from(snapshot: Path) -> None:
    content = snapshot.read_bytes()
    execution = Execution(RUNS["mamba"])
    for size in (*range(64), *range(64, len(content), 97), len(content) - 1):
        snapshot.write_bytes(content[:size])
        with pytest.raises(Unusable, match="damaged"):
            restore_snapshot(execution, snapshot, execution.run)
    assert untouched(execution)


def test_a_flipped_bit_is_named_and_not_gone_on_from(snapshot: Path) -> None:
    content = snapshot.read_bytes()
    draw = random.Random(0)
    execution = Execution(RUNS["mamba"])
    for _ in range(200):
        place, bit = draw.randrange(len(content)), draw.randrange(8)
        changed = bytearray(content)
        changed[place] ^= 1 << bit
        snapshot.write_bytes(changed)
        with pytest.raises(Unusable):
            restore_snapshot(execution, snapshot, execution.run)
    assert untouched(execution)


def test_a_snapshot_of_another_run_or_build_is_named_and_not_gone_on_from(
    snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Execution(replace(RUNS["mamba"], seed=1))
    with pytest.raises(Unusable, match="is of run"):
        restore_snapshot(other, snapshot, other.run)
    assert untouched(other)
    monkeypatch.setattr(native, "build", lambda: "0" * 64)
    with pytest.raises(Unusable, match="made with kernels' build"):
        restore_snapshot(Execution(RUNS["mamba"]), snapshot, RUNS["mamba"])


def test_a_run_whose_snapshot_is_damaged_says_so_and_begins_anew(
    snapshot: Path, tmp_path: Path
) -> None:
    snapshot.write_bytes(snapshot.read_bytes()[:-1])
    run, store = RUNS["mamba"], Store(tmp_path)
    told, *_, last = execute_all([run], store)
    assert isinstance(told, Noted)
    assert "damaged" in told.text
    assert last == Finished(run.address)
    assert same(store.read(run.address), finish(run)[1])


# Killed, interrupted, and with a full disk

LONG = replace(RUNS["mamba"], schedule=replace(PLAN, steps=400))
COMMAND = (
    *("train", "--schedule.rate", "0.01", "--schedule.steps", "4000", "--schedule.context", "16"),
    *("--schedule.batch", "8", "--checks.every", "100", "--checks.sequences", "50"),
    *("--checks.running", "1000"),  # never, so that it lasts
    *("--contexts", "8,16", "--snapshot-every", "0.05", "--quiet", "--json"),
)


def command(folder: Path) -> "subprocess.Popen[str]":
    return started(*COMMAND, cwd=folder)


def until_there_is(pattern: str, folder: Path, since: float = 0.0) -> None:
    deadline = time.monotonic() + 60
    while not any(path.stat().st_mtime > since for path in folder.glob(pattern)):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def only_record(folder: Path) -> Record:
    (record,) = Store(folder / "runs")
    return record


@pytest.mark.whole
def test_a_command_that_is_signalled_goes_on_to_the_same_record(tmp_path: Path) -> None:
    """By each signal in turn, and each time it goes on from where it was."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        begun = time.time()
        process = command(tmp_path)
        until_there_is("runs/unfinished/*.safetensors", tmp_path, begun)
        process.send_signal(number)
        said = process.communicate(timeout=60)[1]
        if number is signal.SIGKILL:
            assert process.returncode == -number
        else:
            assert process.returncode == 128 + number
            assert said.count("\n") == 1
            assert "the same command goes on from there" in said
        assert not list((tmp_path / "runs").glob("*.json"))
    assert ended(command(tmp_path)) == 0
    record = only_record(tmp_path)
    (tmp_path / "at once").mkdir()
    assert ended(command(tmp_path / "at once")) == 0
    assert same(record, only_record(tmp_path / "at once"))
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == sorted(
        [f"{record.address}.json", "unfinished", "weights"]
    )
    assert list((tmp_path / "runs" / "unfinished").iterdir()) == []


LIMITED = """
import resource, sys
from pathlib import Path
from recall_arena.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))
sys.exit(main(sys.argv[1:]))
"""


def test_where_nothing_can_be_written_it_is_said_once_and_nothing_is_left(tmp_path: Path) -> None:
    """Files may have 2 KiB here, as on a disk that is nearly full."""
    words = (*COMMAND, "--schedule.steps", "200")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *words], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1
    cannot, failed = done.stderr.splitlines()
    assert "what it has come to cannot be kept (File too large); it goes on" in cannot
    assert "failed: OSError" in failed
    left = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert left == []


# Many runners on one store

RUNNER = """
import json, os, sys
from contextlib import closing
from pathlib import Path
from recall_arena.executors import Advanced, execute_all
from recall_arena.records import Store
from recall_arena.runs import from_json
runs = [from_json(run) for run in json.loads(sys.stdin.read())]
trained = set()
with closing(execute_all(runs, Store(Path(sys.argv[1])), snapshot_seconds=0.05)) as events:
    for event in events:
        if isinstance(event, Advanced) and not event.progress.tested:
            trained.add(event.address)
        if len(sys.argv) > 2 and isinstance(event, Advanced):
            print(event.address, event.progress.step, flush=True)
print(json.dumps(sorted(trained)))
"""


def runner(runs: list[Run], store: Store, *more: str) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", RUNNER, str(store.folder), *more],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps([run.to_json() for run in runs]))
    process.stdin.close()
    process.stdin = None
    return process


@pytest.mark.whole
def test_a_dead_runners_run_is_taken_over_where_it_was(tmp_path: Path) -> None:
    run, store = replace(LONG, schedule=replace(PLAN, steps=2500)), Store(tmp_path)
    dying = runner([run], store, "tell")
    assert dying.stdout is not None
    assert dying.stdout.readline().startswith(run.address)
    until_there_is("unfinished/*.safetensors", tmp_path)
    dying.send_signal(signal.SIGSTOP)  # it keeps its lease, and does not finish before it is killed
    other = runner([run], store, "tell")
    time.sleep(1.0)
    assert not list(tmp_path.glob("*.json")), "there was no time to kill it"
    dying.kill()
    dying.communicate(timeout=60)
    first, *_ = other.communicate(timeout=120)[0].splitlines()
    address, step = first.split()
    assert address == run.address
    assert int(step) > 1, "it was begun anew"
    assert same(store.read(run.address), finish(run)[1])


def test_who_comes_late_to_a_run_that_is_finished_trains_nothing(tmp_path: Path) -> None:
    run, store = RUNS["mamba"], Store(tmp_path)
    late = execute_all([run], store)  # it has seen that the run is missing
    list(execute_all([run], store))
    assert list(late) == [Finished(run.address)]


def test_what_killed_processes_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    store = Store(tmp_path)
    run = RUNS["mamba"]
    list(execute_all([run], store))
    broken_off(RUNS["diverging"], store, 1)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host = atomic.HOST
    ours = tmp_path / f".{host}.{os.getpid()}.0123abcd.partial"
    left = tmp_path / f".{host}.{dead.pid}.0123abcd.partial"
    elsewhere = tmp_path / f".{host}x.{dead.pid}.0123abcd.partial"
    old = tmp_path / f".{host}x.{dead.pid}.0123abce.partial"
    foreign = tmp_path / ".mine.partial"
    for path in (ours, left, elsewhere, old, foreign, snapshot_path(tmp_path, run.address)):
        path.touch()
    os.utime(old, (0, 0))
    lease_path(tmp_path, run.address).touch()
    sweep(store)
    assert [path.exists() for path in (ours, left, elsewhere, old, foreign)] == [
        *(True, False, True, False, True)
    ]
    unfinished = RUNS["diverging"].address
    assert {path.stem for path in snapshots(store)} == {unfinished}


# Runs that extend others

CONSTANT = replace(PLAN, decay=0.0, steps=20)
SHORT = replace(RUNS["mamba"], schedule=CONSTANT)


def longer(run: Run, steps: int, **changes: object) -> Run:
    return replace(run, schedule=replace(run.schedule, steps=steps), extends=run, **changes)


@pytest.mark.parametrize("kept", [True, False])
def test_at_a_constant_rate_a_longer_run_is_what_it_would_have_been_at_once(
    kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(here, "SECONDS_BETWEEN_NEWS", 0.0)
    store = Store(tmp_path)
    list(execute_all([SHORT], store, keep_weights=kept))
    assert end_path(tmp_path, SHORT.address).exists() == kept
    twice = longer(longer(SHORT, 30), 45)
    for run in (twice.extends, twice):
        assert run is not None
        first, *_ = execute_all([run], store, keep_weights=kept)
        assert run.extends is not None
        assert first.progress.step == (run.extends.schedule.steps + 1 if kept else 1)  # type: ignore[union-attr]
    at_once = finish(replace(twice, extends=None))[1]
    record = store.read(twice.address)
    assert (record.outcome, record.weights) == (at_once.outcome, at_once.weights)
    assert record.address != at_once.address
    assert from_json(record.run) == twice
    assert record.run["extends"]["extends"] == SHORT.to_json()


def test_an_extension_tests_at_other_lengths_without_another_step(tmp_path: Path) -> None:
    store = Store(tmp_path)
    list(execute_all([SHORT], store, keep_weights=True))
    run = replace(SHORT, contexts=Contexts(at=(4, 20), sequences=20), extends=SHORT)
    events = list(execute_all([run], store))
    assert isinstance(events[-1], Finished)
    outcome = store.read(run.address).outcome
    assert outcome.contexts.at == [4, 20]
    assert outcome.checks == store.read(SHORT.address).outcome.checks
    assert outcome.contexts.correct[0] == store.read(SHORT.address).outcome.contexts.correct[0]


def test_under_a_decay_the_first_steps_stay_those_of_the_origin() -> None:
    origin = replace(SHORT, schedule=replace(PLAN, steps=20))
    _, record, _ = finish(longer(origin, 40))
    assert record.outcome.steps == 40
    first = finish(origin)[1].outcome
    assert record.outcome.losses[: len(first.losses)] == first.losses
    assert record.outcome.checks.correct[: len(first.losses)] == first.checks.correct


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "changes steps, decay and test lengths alone"),
        ({"schedule": replace(CONSTANT, rate=1.0, steps=30)}, "changes steps, decay"),
        ({"schedule": replace(CONSTANT, steps=10)}, "steps must be at least 20"),
        ({"checks": replace(CHECKS, every=4)}, "changes steps, decay"),
    ],
)
def test_an_extension_changes_nothing_that_was_decided(
    changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SHORT, extends=SHORT, **changes)


def test_a_run_with_a_check_out_of_turn_at_its_end_is_not_trained_further() -> None:
    with pytest.raises(ValueError, match="only other lengths can be tested"):
        longer(replace(SHORT, schedule=replace(CONSTANT, steps=18)), 36)
