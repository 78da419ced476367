"""Runs find the same wherever they execute, and nothing finished is lost when something breaks."""

import _thread
import contextlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from recall_arena.checkpoints import load_weights, save_weights
from recall_arena.cli import main
from recall_arena.compiled import Compiled
from recall_arena.evaluation import Contexts, accuracy_by_context
from recall_arena.executors import (
    Advanced,
    Event,
    Failed,
    Finished,
    execute_all,
    missing,
    processes,
)
from recall_arena.executors.signals import deferred
from recall_arena.executors.work import Work
from recall_arena.model import ModelSpec
from recall_arena.monitor import tally
from recall_arena.records import Outcome, Store, weights_path
from recall_arena.runs import Checks, Run, build
from recall_arena.tasks import AssociativeRecall
from recall_arena.training import Schedule

FOREVER = 10_000_000  # steps; nobody waits for them


def tiny(seed: int, *, steps: int = 5, model: ModelSpec | None = None) -> Run:
    return Run(
        task=AssociativeRecall(vocabulary=4),
        model=model or ModelSpec(("attention",), vocabulary=4),
        schedule=Schedule(rate=0.01, steps=steps, context=4, batch=2, warmup=0),
        checks=Checks(every=100, sequences=20),
        contexts=Contexts(first=4, last=6, sequences=20),
        seed=seed,
    )


def too_short_positions(seed: int) -> Run:
    spec = ModelSpec(("attention",), vocabulary=4, positions="learned", max_length=3)
    return tiny(seed, model=spec)


def addresses(*runs: Run) -> set[str]:
    return {run.address for run in runs}


def held(store: Store) -> set[str]:
    return {record.address for record in store}


def outcomes(store: Store) -> dict[str, Outcome]:
    return {record.address: record.outcome for record in store}


def finished(events: list[Event]) -> set[str]:
    return {event.address for event in events if isinstance(event, Finished)}


def failed(events: list[Event]) -> dict[str, str]:
    return {event.address: event.reason for event in events if isinstance(event, Failed)}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "records")


@pytest.fixture(autouse=True)
def no_worker_is_left() -> Iterator[None]:
    yield
    workers = multiprocessing.active_children()
    for worker in workers:
        worker.kill()
    assert workers == []


# In this process and in others


MIXED = ModelSpec(("mamba", "attention-rope"), vocabulary=4)
GOOD = [tiny(0), tiny(1, model=MIXED), tiny(2, steps=150, model=MIXED)]
BAD = too_short_positions(3)
RUNS = [GOOD[0], BAD, GOOD[1], GOOD[0], GOOD[2], GOOD[1]]


@pytest.fixture(scope="module")
def here(tmp_path_factory) -> tuple[list[Event], Store]:
    store = Store(tmp_path_factory.mktemp("here"))
    return list(execute_all(RUNS, store, jobs=1)), store


@pytest.fixture(scope="module")
def in_processes(tmp_path_factory) -> tuple[list[Event], Store]:
    store = Store(tmp_path_factory.mktemp("processes"))
    return list(execute_all(RUNS, store, jobs=2)), store


@pytest.fixture(params=["here", "in_processes"])
def executed(request) -> tuple[list[Event], Store]:
    return request.getfixturevalue(request.param)


def test_outcomes_are_the_same_bit_for_bit_wherever_runs_execute(here, in_processes):
    assert outcomes(here[1]) == outcomes(in_processes[1])
    assert held(here[1]) == addresses(*GOOD)


def test_each_run_ends_once_and_its_record_is_in_the_store(executed):
    events, store = executed
    ends = [event.address for event in events if isinstance(event, Finished)]
    assert sorted(ends) == sorted(addresses(*GOOD))
    assert held(store) == addresses(*GOOD)


def test_a_run_that_breaks_off_is_reported_with_its_reason_while_the_others_finish(executed):
    events, store = executed
    reason = "ValueError: learned positions reach 3 tokens, got a sequence of 5"
    assert failed(events) == {BAD.address: reason}
    assert BAD.address not in store


def test_news_of_a_run_come_before_its_end(executed):
    events, _ = executed
    over = set()
    for event in events:
        assert event.address not in over
        if isinstance(event, Advanced):
            assert 1 <= event.progress.step <= event.progress.steps
        else:
            over.add(event.address)
    told = {event.address for event in events if isinstance(event, Advanced)}
    assert told == addresses(*GOOD)


def test_in_this_process_runs_execute_in_their_order(here):
    events, _ = here
    ends = [event.address for event in events if not isinstance(event, Advanced)]
    assert ends == [run.address for run in (GOOD[0], BAD, GOOD[1], GOOD[2])]


@pytest.mark.whole
@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:1", "ray://127.0.0.1:99999999"])
def test_an_address_where_no_ray_answers_is_refused_at_once(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ValueError, match=f"RAY_ADDRESS must be HOST:PORT .* got '{address}'"):
        execute_all([tiny(0)], Store(tmp_path), executor="ray")


def test_cores_are_divided_among_runs_by_their_threads(store, monkeypatch):
    monkeypatch.setattr(processes, "cores", lambda: 5)
    at_once, in_processes = [], processes._in_processes

    def told(runs: list[Run], work: Work, jobs: int) -> Iterator[Event]:
        at_once.append(jobs)
        return in_processes(runs, work, jobs)

    monkeypatch.setattr(processes, "_in_processes", told)
    for threads in (1, 2, 4, 7):
        some = [tiny(10 * threads), tiny(10 * threads + 1)]
        events = list(execute_all(some, store, jobs=None, threads=threads))
        assert finished(events) == addresses(*some)
    assert at_once == [5, 2], "with room for one alone they are executed in this process"


@pytest.mark.parametrize("jobs", [1, 2])
def test_complete_runs_are_passed_over_without_a_word(here, jobs):
    _, store = here
    before = {path: path.stat().st_mtime_ns for path in store.folder.iterdir()}
    assert list(execute_all(GOOD, store, jobs=jobs)) == []
    assert {path: path.stat().st_mtime_ns for path in store.folder.iterdir()} == before


def test_missing_are_those_without_a_record_each_once_in_their_order(here):
    _, store = here
    runs = [tiny(9), GOOD[0], BAD, tiny(8), tiny(9)]
    assert missing(runs, store) == [tiny(9), BAD, tiny(8)]


def test_nothing_is_executed_before_the_first_event_is_asked_for(store):
    execute_all([tiny(0)], store, jobs=1)
    execute_all([tiny(0), tiny(1)], store, jobs=2)
    assert held(store) == set()
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("steps", [5, FOREVER])
def test_in_this_process_threads_are_given_back(store, steps):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        events = execute_all([tiny(0, steps=steps), tiny(1)], store, jobs=1, threads=1)
        next(events)
        assert torch.get_num_threads() == 1
        if steps == FOREVER:
            events.close()
        else:
            list(events)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_records_name_the_threads_of_their_workers(in_processes):
    assert {record.provenance.threads for record in in_processes[1]} == {1}


@pytest.mark.parametrize("jobs", [1, 2])
def test_no_kind_of_error_keeps_other_runs_from_finishing(store, jobs):
    """A task with more tokens than the model has rows is an IndexError deep inside."""
    bad = tiny(0, model=ModelSpec(("attention",), vocabulary=2))
    events = list(execute_all([bad, tiny(1)], store, jobs=jobs))
    assert failed(events).keys() == addresses(bad)
    assert "IndexError: index out of range" in failed(events)[bad.address]
    assert finished(events) == held(store) == addresses(tiny(1))


@pytest.mark.timeout(20)
def test_runs_need_at_least_one_process(store):
    with pytest.raises(ValueError, match="jobs must be at least 1, got 0"):
        list(execute_all([tiny(0), tiny(1)], store, jobs=0))


def test_an_executor_that_does_not_exist_or_cannot_be_imported_is_a_mistake(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--executor", "rya"]) == 2
    said = "recall: no executor 'rya'; did you mean 'ray'? There are: local, ray, slurm\n"
    assert capsys.readouterr().err == said
    for name, package in (("ray", "ray"), ("slurm", "submitit")):
        monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
        for module in ("on_ray", "on_slurm", "slurm_jobs"):
            monkeypatch.delitem(sys.modules, f"recall_arena.executors.{module}", raising=False)
        assert main(["train", "--executor", name]) == 2
        said = (
            f"recall: the executor {name!r} needs {package}: pip install 'recall-arena[{name}]'\n"
        )
        assert capsys.readouterr().err == said


# Giving up


def test_a_run_that_was_given_up_finds_the_same_when_it_is_executed_again(store, tmp_path):
    runs = [tiny(0), tiny(1, steps=200, model=MIXED), tiny(2)]
    events = execute_all(runs, store, jobs=1)
    for event in events:
        if isinstance(event, Advanced) and event.address == runs[1].address:
            break
    events.close()
    assert held(store) == addresses(runs[0])

    assert finished(list(execute_all(runs, store, jobs=1))) == addresses(*runs[1:])
    uninterrupted = Store(tmp_path / "uninterrupted")
    list(execute_all(runs, uninterrupted, jobs=1))
    assert outcomes(store) == outcomes(uninterrupted)


def test_closing_stops_the_workers_keeps_what_is_finished_and_leaves_the_rest(store, here):
    runs = [GOOD[0], tiny(7, steps=FOREVER), GOOD[1]]
    events = execute_all(runs, store, jobs=2)
    for event in events:
        if isinstance(event, Finished):
            break
    begun = time.monotonic()
    events.close()

    assert time.monotonic() - begun < 30  # a worker may have to finish its start
    assert multiprocessing.active_children() == []
    assert held(store) == addresses(GOOD[0])

    assert finished(list(execute_all(GOOD, store, jobs=1))) == addresses(*GOOD[1:])
    assert outcomes(store) == outcomes(here[1])


PAUSE = """
import json, sys, time
from pathlib import Path
from recall_arena.executors import execute_all
from recall_arena.records import Store
from recall_arena.runs import from_json

if __name__ == "__main__":
    runs = [from_json(values) for values in json.loads(sys.argv[1])]
    events = execute_all(runs, Store(Path(sys.argv[2])), jobs=2)
    next(events)
    time.sleep(90)
    events.close()
    print("closed")
"""


@pytest.mark.slow
def test_who_looks_away_for_a_minute_can_still_close(tmp_path):
    """News that nobody reads must not fill a pipe on which the workers then wait for ever."""
    result = run_script(PAUSE, tmp_path, [tiny(seed, steps=FOREVER) for seed in range(2)])
    try:
        assert result.communicate(timeout=180)[0] == "closed\n"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(result.pid, signal.SIGKILL)
        result.stdout.close()
        result.stderr.close()


SIGNALLED = """
import json, os, signal, sys, threading
from contextlib import closing
from multiprocessing import forkserver
from pathlib import Path
from recall_arena.executors import execute_all
from recall_arena.records import Store
from recall_arena.runs import from_json

class Stopped(BaseException):
    pass

def stop(number, frame):
    raise Stopped

def between_birth_and_task(fds, connect=forkserver.connect_to_new_process):
    pipes = connect(fds)
    os.kill(os.getpid(), signal.SIGTERM)
    return pipes

if __name__ == "__main__":
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    if sys.argv[3] == "between birth and task":
        forkserver.connect_to_new_process = between_birth_and_task
    else:
        threading.Timer(0.5, lambda: os.killpg(0, signal.SIGINT)).start()
    runs = [from_json(values) for values in json.loads(sys.argv[1])]
    try:
        with closing(execute_all(runs, Store(Path(sys.argv[2])), jobs=2)) as events:
            print(len(list(events)))
    except Stopped:
        print("stopped")
"""


@pytest.mark.whole
@pytest.mark.parametrize("moment", ["between birth and task", "while the server imports torch"])
def test_a_signal_while_workers_start_ends_them_without_a_word(tmp_path, moment):
    """SIGTERM to the parent; Ctrl-C to it and to its server, as a terminal sends it."""
    runs = [tiny(seed, steps=FOREVER) for seed in range(2)]
    result = run_script(SIGNALLED, tmp_path, runs, moment)
    try:
        assert result.communicate(timeout=90) == ("stopped\n", "")
        assert held(Store(tmp_path / "records")) == set()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(result.pid, signal.SIGKILL)


def test_a_second_signal_while_a_worker_starts_is_not_deferred():
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        with deferred():
            signal.raise_signal(signal.SIGTERM)
            assert heard == []
            signal.raise_signal(signal.SIGTERM)
            assert heard == [signal.SIGTERM]
        assert heard == [signal.SIGTERM] * 2
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_deferred_signal_takes_effect_also_where_the_system_holds_signals_back():
    """Ray's workers block SIGINT, and are interrupted from within."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with pytest.raises(KeyboardInterrupt), deferred():
            _thread.interrupt_main()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# Weights


@pytest.mark.parametrize("jobs", [1, 2])
def test_weights_are_kept_on_request_and_are_those_of_the_record(store, jobs):
    run, other = tiny(1, steps=50, model=MIXED), tiny(0)
    list(execute_all([other], store))
    assert missing([other, run], store, keep_weights=True) == [other, run]
    list(execute_all([other, run], store, jobs=jobs, keep_weights=True))

    assert missing([other, run], store, keep_weights=True) == []
    model = build(run)
    load_weights(model, weights_path(store.folder, run.address))
    counts = accuracy_by_context(Compiled(model).logits, run.task, run.contexts)
    assert tally(list(counts)) == store.read(run.address).outcome.contexts


def test_there_is_no_record_before_its_weights(store, monkeypatch):
    there = []
    monkeypatch.setattr(store, "write", lambda record: there.extend(store.folder.rglob("*.*")))
    list(execute_all([tiny(0)], store, keep_weights=True))
    assert weights_path(store.folder, tiny(0).address) in there


def test_weights_that_cannot_be_kept_are_a_failed_run_without_a_record(store):
    store.folder.mkdir()
    (store.folder / "weights").write_text("a file")
    events = list(execute_all([tiny(0)], store, keep_weights=True))
    assert "weights" in failed(events)[tiny(0).address]
    assert held(store) == set()


@pytest.mark.parametrize("damage", ["", "not weights", None])
def test_weights_of_something_else_are_named(store, damage):
    path = weights_path(store.folder, tiny(0).address)
    save_weights(build(tiny(0, model=MIXED)), path)
    if damage is not None:
        path.write_text(damage)
    with pytest.raises(ValueError, match=r"\.safetensors does not hold this model's weights"):
        load_weights(build(tiny(0)), path)
    assert [other.name for other in path.parent.iterdir()] == [path.name]


# Being killed


def kill_a_worker() -> None:
    os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)


def test_a_killed_worker_fails_its_run_and_no_other(store):
    """One of two is killed; the third run takes its place; then the second is killed too."""
    long, short = [tiny(seed, steps=FOREVER) for seed in (0, 1)], tiny(2)
    ends, most = [], 0
    for event in execute_all([*long, short], store, jobs=2):
        most = max(most, len(multiprocessing.active_children()))
        if isinstance(event, Advanced) and not ends:
            kill_a_worker()
            ends.append(event)
        elif not isinstance(event, Advanced):
            ends.append(event)
            if isinstance(event, Finished):
                kill_a_worker()

    assert most == 2
    assert [type(event) for event in ends] == [Advanced, Failed, Finished, Failed]
    assert failed(ends).keys() == addresses(*long)
    assert all("killed" in reason for reason in failed(ends).values())
    assert held(store) == addresses(short)


def test_a_worker_killed_while_nobody_looks_fails_its_run_and_the_rest_finish(store):
    """It is gone between two events, before the run that waits is begun."""
    long, rest = tiny(0, steps=FOREVER), [tiny(1), tiny(2)]
    events = []
    for event in execute_all([long, *rest], store, jobs=2):
        events.append(event)
        if isinstance(event, Finished) and event.address == rest[0].address:
            kill_a_worker()
            time.sleep(0.5)

    assert failed(events).keys() == addresses(long)
    assert finished(events) == held(store) == addresses(*rest)


def alive(group: int) -> set[int]:
    """The processes of a group, without those that only wait to be collected."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, owner = path.read_text().rpartition(")")[2].split()[:3]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(owner) == group and state not in "ZX":
            found.add(int(path.parent.name))
    return found


def run_script(script: str, folder: Path, runs: list[Run], *words: str) -> subprocess.Popen[str]:
    """Start a script of its own process group; its arguments are the runs, a store, the words."""
    path = folder / "script.py"
    path.write_text(script)
    values = json.dumps([run.to_json() for run in runs])
    command = [sys.executable, str(path), values, str(folder / "records"), *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, **pipes, text=True, start_new_session=True, cwd=folder)


ORPHANS = """
import json, os, signal, sys
from pathlib import Path
from recall_arena.executors import Advanced, Finished, execute_all
from recall_arena.records import Store
from recall_arena.runs import from_json

if __name__ == "__main__":
    runs = [from_json(values) for values in json.loads(sys.argv[1])]
    wanted, seen = {(Finished, runs[0].address), (Advanced, runs[1].address)}, set()
    for event in execute_all(runs, Store(Path(sys.argv[2])), jobs=2):
        seen.add((type(event), event.address))
        if wanted <= seen:
            print("dying", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.whole
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are watched in /proc")
def test_workers_end_by_themselves_when_their_parent_is_killed(tmp_path):
    """Those that are at work, those that have nothing left to do, and whatever serves them."""
    parent = run_script(ORPHANS, tmp_path, [tiny(0), tiny(1, steps=FOREVER)])
    try:
        assert parent.stdout.readline() == "dying\n"
        assert parent.wait() == -signal.SIGKILL
        deadline = time.monotonic() + 30
        while alive(parent.pid) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert alive(parent.pid) == set()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(parent.pid, signal.SIGKILL)
        parent.stdout.close()
        parent.stderr.close()
