"""Runs as Ray tasks, on several nodes that are processes of this machine, and when nodes die."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from cluster_runs import BAD, runs, same_as_here, until
from conftest import ROOT

from recall_arena.executors import Advanced, Busy, Failed, Finished, Noted, execute_all
from recall_arena.executors.work import Work
from recall_arena.records import Store, snapshot_path
from recall_arena.runs import Run, run_of

ray = pytest.importorskip("ray")

from ray.cluster_utils import Cluster  # noqa: E402

from recall_arena.executors import on_ray  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A cluster of two nodes of one CPU each; this process is connected to the first."""
    made = Cluster(True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        made.add_node(num_cpus=1)
        ray.init(made.address, log_to_driver=False)
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "records")


def workers(raylet: int | None = None) -> list[int]:
    """The processes that execute runs, of one node or of all."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            name = path.joinpath("cmdline").read_bytes()
            parent = int(path.joinpath("stat").read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        if name.startswith(b"ray::recall-arena") and raylet in (None, parent):
            found.append(int(path.name))
    return found


def finished(events: list[object]) -> list[str]:
    return sorted(event.address for event in events if isinstance(event, Finished))


def addresses(some: list[Run]) -> list[str]:
    return sorted(run.address for run in some)


def test_the_runs_of_a_node_that_dies_go_on_elsewhere_with_equal_bits(
    cluster: Cluster, store: Store
) -> None:
    some = runs(4, steps=3000)
    node = next(iter(cluster.worker_nodes))
    raylet = node.all_processes["raylet"][0].process.pid
    events, killed = [], False
    for event in execute_all(some, store, jobs=None, executor="ray", snapshot_seconds=0.1):
        events.append(event)
        if not killed and len(list(store.folder.glob("unfinished/*.safetensors"))) == 2:
            assert workers(raylet), "the node has no run to lose"
            cluster.remove_node(node, allow_graceful=False)
            killed = True
    assert killed
    assert finished(events) == addresses(some)
    assert same_as_here(store, some)


def test_a_worker_that_is_killed_is_replaced_and_a_run_that_fails_says_why(
    cluster: Cluster, store: Store
) -> None:
    (run,) = runs(1, steps=1500)
    last, killed = {}, False
    for event in execute_all([run, BAD], store, jobs=2, executor="ray", snapshot_seconds=0.1):
        last[event.address] = event
        if not killed and snapshot_path(store.folder, run.address).exists():
            for worker in workers():
                os.kill(worker, signal.SIGKILL)
            killed = True
    assert killed
    reason = "ValueError: learned positions reach 3 tokens, got a sequence of 13"
    assert last == {
        run.address: Finished(run.address),
        BAD.address: Failed(BAD.address, reason),
    }
    assert same_as_here(store, [run])


def test_closing_cancels_and_what_runs_have_come_to_is_kept(cluster: Cluster, store: Store) -> None:
    some = runs(3, steps=3000)
    with closing(execute_all(some, store, jobs=2, executor="ray")) as events:
        told = set()
        while len(told) < 2:
            told |= {event.address for event in [next(events)] if isinstance(event, Advanced)}
    until(lambda: not workers())
    assert sorted(path.stem for path in store.folder.glob("unfinished/*.safetensors")) == sorted(
        told
    )
    assert finished(list(execute_all(some, store))) == addresses(some)
    assert same_as_here(store, some)


def test_only_so_many_tasks_are_handed_in_at_once(cluster: Cluster, store: Store) -> None:
    some = runs(7)
    for jobs, most in ((3, 3), (None, 4)):
        work = Work(Store(store.folder / str(jobs)))
        with closing(on_ray._Tasks(work, jobs)) as tasks:
            seen = max(len(tasks._working) for _ in tasks.execute(some))
        assert seen <= most
        assert work.missing(some) == []


def test_runs_with_more_threads_than_a_node_has_cpus_say_that_they_wait(
    cluster: Cluster, store: Store
) -> None:
    (run,) = runs(1)
    with closing(execute_all([run], store, threads=2, executor="ray")) as events:
        text = "it waits for a node with 2 CPUs; the largest one has 1"
        assert next(events) == Noted(run.address, text)
        cluster.add_node(num_cpus=2)
        assert [e for e in events if not isinstance(e, Busy)][-1] == Finished(run.address)


# As a command, with a Ray of its own

SWEEP = (
    *("sweep", "--grid", "seed=0,1", "--executor", "ray", "--jobs", "2", "--quiet"),
    *("--schedule.rate", "0.01", "--schedule.steps", "5000", "--schedule.context", "16"),
    *("--schedule.batch", "8", "--checks.every", "1000", "--checks.sequences", "50"),
    *("--contexts", "8,16", "--checks.running", "10000", "--snapshot-every", "0.1"),
)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_starts_a_ray_and_ends_it_also_when_it_is_interrupted(
    number: signal.Signals, tmp_path: Path
) -> None:
    environment = {n: value for n, value in os.environ.items() if n != "RAY_ADDRESS"}
    words = [sys.executable, "-m", "recall_arena", *SWEEP]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    first = subprocess.Popen(words, cwd=tmp_path, env=environment, text=True, **pipes)
    until(lambda: len(workers()) == 2)
    until(lambda: len(list(tmp_path.glob("runs/unfinished/*.safetensors"))) == 2)
    first.send_signal(number)
    said = first.communicate(timeout=120)[1]
    assert first.returncode == 128 + number
    assert said.count("\n") == 1
    assert workers() == []
    assert len(list(tmp_path.glob("runs/unfinished/*.safetensors"))) == 2

    done = subprocess.run(words, cwd=tmp_path, env=environment, text=True, capture_output=True)
    assert (done.returncode, done.stderr) == (0, "")
    store = Store(tmp_path / "runs")
    assert same_as_here(store, [run_of(record) for record in store])


def test_a_command_works_in_the_cluster_at_ray_address_and_leaves_it_running(
    cluster: Cluster, tmp_path: Path
) -> None:
    environment = {**os.environ, "RAY_ADDRESS": cluster.address}
    words = [sys.executable, "-m", "recall_arena", *SWEEP, "--schedule.steps", "20000"]
    at_work = subprocess.Popen(words, cwd=tmp_path, env=environment, stderr=subprocess.PIPE)
    raylets = {node.all_processes["raylet"][0].process.pid for node in cluster.list_all_nodes()}
    until(lambda: all(len(workers(raylet)) == 1 for raylet in raylets))
    said = at_work.communicate(timeout=120)[1]
    assert (at_work.returncode, said) == (0, b"")
    store = Store(tmp_path / "runs")
    assert same_as_here(store, [run_of(record) for record in store])
    assert len(store.addresses()) == 2
    assert [node["Alive"] for node in ray.nodes()] == [True, True]


MINE = """
from pathlib import Path
import mine
from test_outside import run_with
from recall_arena.executors import execute_all
from recall_arena.records import Store

if __name__ == "__main__":
    runs = [run_with(mine.FirstToken(), mine.Leaky(keep=0.5), seed) for seed in (0, 1)]
    for event in execute_all(runs, Store(Path("runs")), executor="ray"):
        print(event)
"""


def test_workers_know_tasks_and_mixers_of_other_packages(tmp_path: Path) -> None:
    outside = f"import sys\nsys.path.append({str(ROOT / 'tests' / 'outside')!r})\n"
    added = (
        "from leaky_arena.mixer import Leaky\nfrom leaky_arena.task import FirstToken\n"
        "from recall_arena.mixers import MIXERS\nfrom recall_arena.tasks import TASKS\n"
        "MIXERS['my-leaky'] = Leaky()\nTASKS['my-first'] = FirstToken\n"
    )
    (tmp_path / "mine.py").write_text(outside + added)
    (tmp_path / "script.py").write_text(MINE)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.stdout.count("Finished") == 2, done.stderr
