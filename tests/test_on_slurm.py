"""Runs as jobs: of submitit's local processes everywhere, of a real SLURM where there is one."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from cluster_runs import BAD, runs, same_as_here, until
from conftest import ROOT

from recall_arena.cli import main
from recall_arena.execution import Progress
from recall_arena.executors import Advanced, Failed, Finished, Noted
from recall_arena.executors.news import Reader, Teller
from recall_arena.executors.work import Work
from recall_arena.records import Store, snapshot_path
from recall_arena.runs import run_of

submitit = pytest.importorskip("submitit")

from recall_arena.executors import on_slurm, slurm_jobs  # noqa: E402
from recall_arena.executors.on_slurm import execute_on  # noqa: E402

pytestmark = pytest.mark.whole


class Processes(slurm_jobs.Slurm):
    """A cluster that is this machine: submitit's local processes, and no queue."""

    def __init__(self) -> None:
        self.handed_in: list[submitit.LocalJob[None]] = []

    def submit(
        self, jobs: Sequence[slurm_jobs.Job], folder: Path, work: Work, most: int
    ) -> list[str]:
        executor = submitit.LocalExecutor(folder)
        executor.update_parameters(timeout_min=5, stderr_to_stdout=True)
        fresh = executor.submit_array(jobs)
        self.handed_in += fresh
        return [job.job_id for job in fresh]

    def present(self) -> set[str]:
        return {job.job_id for job in self.handed_in if not job.done()}

    def working(self) -> list[int]:
        """The processes that execute runs."""
        return [
            int(child)
            for job in self.handed_in
            for path in Path(f"/proc/{job.job_id}/task").glob("*/children")
            for child in path.read_text().split()
        ]


@pytest.fixture
def cluster() -> Iterator[Processes]:
    made = Processes()
    yield made
    for process in made.working():
        os.kill(process, signal.SIGKILL)
    for job in made.handed_in:
        job.wait()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "records")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_slurm, "SECONDS_BETWEEN_LOOKS", 0.1)
    monkeypatch.setattr(on_slurm, "SECONDS_BETWEEN_QUESTIONS", 1.0)


def test_a_job_finds_what_this_process_finds_and_leaves_nothing(
    cluster: Processes, store: Store
) -> None:
    (run,) = runs(1)
    events = list(execute_on(cluster, [run], Work(store), None))
    assert events[-1] == Finished(run.address)
    assert same_as_here(store, [run])
    assert list((store.folder / "slurm").glob("*/")) == []


def test_what_fails_says_why_and_its_log_stays(cluster: Processes, store: Store) -> None:
    *_, last = execute_on(cluster, [BAD], Work(store), None)
    reason = "ValueError: learned positions reach 3 tokens, got a sequence of 13"
    assert last == Failed(BAD.address, reason)
    assert len(list((store.folder / "slurm").glob("*/*_0_log.out"))) == 1


@pytest.mark.slow
def test_whoever_closes_leaves_the_jobs_and_whoever_comes_again_follows_them(
    cluster: Processes, store: Store
) -> None:
    some = runs(2, steps=3000)
    with closing(execute_on(cluster, some, Work(store), None)) as events:
        next(event for event in events if isinstance(event, Advanced))
    assert len(cluster.working()) == 2
    again = list(execute_on(cluster, some, Work(store), None))
    assert len(cluster.handed_in) == 2
    assert {e.address for e in again if isinstance(e, Finished)} == {r.address for r in some}
    assert same_as_here(store, some)


@pytest.mark.slow
def test_a_job_that_is_given_notice_is_handed_in_again_and_goes_on(
    cluster: Processes, store: Store
) -> None:
    (run,) = runs(1, steps=4000)
    work = Work(store, snapshot_seconds=1e6)  # only the notice has a snapshot written
    with closing(execute_on(cluster, [run], work, None)) as events:
        step = next(e.progress.step for e in events if isinstance(e, Advanced))
        (first,) = cluster.working()
        os.kill(first, signal.SIGUSR2)
        until(lambda: cluster.working() not in ([first], []))
        assert snapshot_path(store.folder, run.address).exists()
        rest = list(events)
    assert rest[-1] == Finished(run.address)
    assert all(e.progress.step > step for e in rest if isinstance(e, Advanced))
    assert same_as_here(store, [run])


@pytest.mark.slow
def test_a_job_that_is_killed_is_a_failed_run_and_the_next_command_goes_on(
    cluster: Processes, store: Store
) -> None:
    (run,) = runs(1, steps=4000)
    work = Work(store, snapshot_seconds=0.1)
    events = execute_on(cluster, [run], work, None)
    next(events)
    until(snapshot_path(store.folder, run.address).exists)
    os.kill(cluster.working()[0], signal.SIGKILL)
    *_, last = events
    assert isinstance(last, Failed)
    assert "ended without a record; its log is" in last.reason
    assert Path(last.reason.rpartition(" ")[2]).exists()
    *_, last = execute_on(cluster, [run], work, None)
    assert last == Finished(run.address)
    assert same_as_here(store, [run])
    assert list((store.folder / "slurm").glob("*/")) == []


def test_more_runs_than_jobs_are_shared_out_among_them(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Written(slurm_jobs.Slurm):
        def submit(
            self, jobs: Sequence[slurm_jobs.Job], folder: Path, work: Work, most: int
        ) -> list[str]:
            assert work.threads == 2
            return [f"1_{place}" for place in range(len(jobs))]

    some = runs(8)
    for largest, most, jobs in ((3, 7, 3), (3, None, 3), (1000, 1, 4), (1000, 2, 8)):
        monkeypatch.setattr(slurm_jobs, "LARGEST_ARRAY", largest)
        batch = slurm_jobs.submit(Written(), some, Work(store, threads=2), most)
        shared = [[run.address for run in some[first::jobs]] for first in range(jobs)]
        assert batch.addresses == {f"1_{job}": own for job, own in enumerate(shared)}
        assert list(slurm_jobs.submitted(store.folder)) == [batch]
        shutil.rmtree(batch.folder)


def test_news_by_file_are_those_that_were_told(tmp_path: Path) -> None:
    a, b = runs(2)
    teller, reader = Teller(tmp_path), Reader()
    assert list(reader.read(tmp_path, a.address)) == []
    told = [
        Noted(a.address, "one"),
        Noted(a.address, "two"),
        Advanced(a.address, Progress(1, 9, 0.5)),
    ]
    for event in told:
        teller.tell(event)
    assert (
        list(reader.read(tmp_path, a.address)) == told[:2]
    )  # so soon after the last it is not told
    teller.tell(Failed(a.address, "it broke"))
    last = [told[2], Failed(a.address, "it broke")]
    assert list(reader.read(tmp_path, a.address)) == last
    teller.tell(Advanced(b.address, Progress(3, 9, 0.5)))
    assert list(reader.read(tmp_path, b.address)) == [Advanced(b.address, Progress(3, 9, 0.5))]
    (tmp_path / f"{b.address}.news").write_text("{")
    assert list(reader.read(tmp_path, b.address)) == []


def test_without_sbatch_it_is_refused_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["train", "--executor", "slurm"]) == 2
    said = capsys.readouterr().err
    assert said == "recall: the executor 'slurm' needs sbatch, which this machine does not have\n"


# A real SLURM

HAS_SLURM = all(map(shutil.which, ("slurmctld", "slurmd", "sbatch", "munged")))
needs_slurm = pytest.mark.skipif(
    not HAS_SLURM or os.geteuid() != 0, reason="needs root and SLURM's daemons"
)
SWEEP = (
    *("sweep", "--grid", "seed=0,1,2", "--executor", "slurm", "--jobs", "2", "--quiet", "--json"),
    *("--schedule.rate", "0.01", "--schedule.steps", "6000", "--schedule.context", "16"),
    *("--schedule.batch", "8", "--checks.every", "1000", "--checks.sequences", "50"),
    *("--contexts", "8,16", "--checks.running", "10000"),
)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of commands of a SLURM of one node."""
    folder = tmp_path_factory.mktemp("slurm")
    script = str(ROOT / "scripts" / "one_node_slurm.sh")
    subprocess.run([script, "start", str(folder)], check=True)
    yield {**os.environ, "SLURM_CONF": str(folder / "slurm.conf"), "SBATCH_TIMELIMIT": "30"}
    subprocess.run([script, "stop", str(folder)], check=True)


def queue(env: dict[str, str], state: str = "all") -> list[str]:
    """The names of the jobs that are not over."""
    words = ("squeue", "--me", "--noheader", "--array", "--format=%i")
    words = words if state == "all" else (*words, f"--states={state}")
    return subprocess.run(words, env=env, capture_output=True, text=True, check=True).stdout.split()


def command(folder: Path, env: dict[str, str]) -> "subprocess.Popen[str]":
    words = [sys.executable, "-m", "recall_arena", *SWEEP, "--snapshot-every", "1000000"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(words, cwd=folder, env=env, text=True, **pipes)


@needs_slurm
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_in_slurm_runs_outlive_their_command_and_preemption(
    slurm: dict[str, str], tmp_path: Path
) -> None:
    """Two ways to be preempted: with notice, and by SIGTERM as `scontrol requeue` has it."""
    unfinished, news = tmp_path / "runs" / "unfinished", tmp_path / "runs" / "slurm"
    first = command(tmp_path, slurm)
    until(lambda: len(list(news.glob("*/*.news"))) == 2)  # two of three are at work
    working = queue(slurm, "running")
    assert len(queue(slurm)) == 3
    first.send_signal(signal.SIGINT)
    said = first.communicate(timeout=120)[1]
    assert first.returncode == 130, said
    assert "its jobs stay in SLURM's queue: the same command follows them" in said
    assert queue(slurm, "running") == working

    second = command(tmp_path, slurm)
    subprocess.run(["scontrol", "requeue", working[0]], env=slurm, check=True)
    subprocess.run(["scancel", "--signal=USR2", working[1]], env=slurm, check=True)
    until(lambda: len(list(unfinished.glob("*.safetensors"))) == 2)
    logs = [path for name in working for path in news.glob(f"*/{name}_0_log.out")]
    until(lambda: [log.read_text().count("Starting with") for log in logs] == [2, 2])
    out, said = second.communicate(timeout=400)
    assert second.returncode == 0, said
    assert said == ""
    assert json.loads(out)
    store = Store(tmp_path / "runs")
    assert len(store.addresses()) == 3
    assert same_as_here(store, [run_of(record) for record in store])
    assert list(news.glob("*/")) == []


@needs_slurm
@pytest.mark.slow
def test_what_sbatch_refuses_is_said_in_a_line(slurm: dict[str, str], tmp_path: Path) -> None:
    refused = command(tmp_path, {**slurm, "SBATCH_PARTITION": "nowhere"})
    said = refused.communicate(timeout=120)[1]
    assert refused.returncode == 2
    assert said.startswith("recall: sbatch refuses the runs: ")
    assert "invalid partition" in said
    assert said.count("\n") == 1
    assert list((tmp_path / "runs" / "slurm").glob("*/")) == []
