"""Jobs of a SLURM cluster: an array of them is handed in by submitit, each for some runs.

Everything about an array stands in a folder of its own in the store: what submitit needs and
writes, the runs of each job, their news.  It is removed when all the runs have their records.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from types import FrameType
from typing import Any

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError
from submitit.helpers import DelayedSubmission

from recall_arena import atomic
from recall_arena.executors.here import execute_here
from recall_arena.executors.memory import keep_freed_memory
from recall_arena.executors.news import Teller
from recall_arena.executors.outside import Parcel, packed
from recall_arena.executors.work import Work
from recall_arena.runs import Run

FOLDER = "slurm"
LARGEST_ARRAY = 1000  # SLURM's own limit, unless a cluster sets another
TURNS = 4
"""So many jobs for each that may be at work at once: every job starts a Python of its own, which
takes as long as hundreds of steps, and a long one may keep the last runs waiting.
"""
MINUTES = 60
"""What a job asks for where SBATCH_TIMELIMIT says nothing else; a run goes on in a further job."""
SECONDS_OF_NOTICE = 90
FOR_EVER = 1_000_000
"""How often a job is handed in again that has not ended in time; each time it comes further."""


@dataclass(frozen=True)
class Job:
    """What a job does: its runs, one after another.  Preempted or out of time, it is handed in
    again, and goes on from what it has come to.
    """

    parcel: Parcel
    work: Work
    folder: Path

    def __call__(self) -> None:
        """Execute the runs."""
        signal.signal(signal.SIGTERM, _give_up)
        runs = self.parcel.opened()
        keep_freed_memory()
        teller = Teller(self.folder)
        with closing(execute_here(runs, self.work)) as events:
            for event in events:
                teller.tell(event)

    def checkpoint(self) -> DelayedSubmission:
        """What submitit hands in again when SLURM gives notice."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it comes when the job is handed in again
        return DelayedSubmission(self)


def _give_up(number: int, frame: FrameType | None) -> None:
    """What has been come to is kept on the way out; SLURM begins a preempted job again."""
    signal.signal(number, signal.SIG_IGN)
    sys.exit(128 + number)


class Slurm:
    """The cluster that this machine submits to, by the environment variables of `sbatch`."""

    def submit(self, jobs: Sequence[Job], folder: Path, work: Work, most: int) -> list[str]:
        """Hand jobs in as one array, and return their names, such as 17_0.

        Raises OSError if sbatch refuses them.
        """
        executor = submitit.SlurmExecutor(folder, max_num_timeout=FOR_EVER)
        executor.update_parameters(
            job_name="recall-arena",
            time=MINUTES,
            cpus_per_task=work.threads,
            gpus_per_node=work.gpus or None,
            array_parallelism=most,
            signal_delay_s=SECONDS_OF_NOTICE,
            stderr_to_stdout=True,
            srun_args=[f"--cpus-per-task={work.threads}"],  # sbatch's own does not reach srun
            additional_parameters={"requeue": True},
        )
        try:
            with redirect_stderr(StringIO()):
                return [job.job_id for job in executor.submit_array(jobs)]
        except (FailedJobError, FailedSubmissionError) as error:
            raise OSError(f"sbatch refuses the runs: {error}".partition("\n")[0]) from None

    def present(self) -> set[str] | None:
        """The names of the jobs that wait or are at work; None if nobody can tell at present.

        `squeue` rather than submitit's `sacct`, which needs a data base that many clusters lack.
        """
        command = ("squeue", "--me", "--noheader", "--array", "--format=%i")
        plain = {name: v for name, v in os.environ.items() if not name.startswith("SQUEUE_")}
        try:
            done = subprocess.run(
                command, env=plain, capture_output=True, text=True, timeout=60, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return set(done.stdout.split())


@dataclass(frozen=True)
class Batch:
    """An array that has been handed in: its folder, and the addresses of each job's runs."""

    folder: Path
    addresses: dict[str, list[str]]


def submit(cluster: Slurm, runs: Sequence[Run], work: Work, most: int | None) -> Batch:
    """Hand runs in; at most `most` are at work at once."""
    root = work.store.folder.absolute() / FOLDER
    root.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=root, prefix=time.strftime("%Y-%m-%d-")))
    size = min(len(runs), LARGEST_ARRAY, TURNS * (most or LARGEST_ARRAY))
    parts = [tuple(runs[first::size]) for first in range(size)]
    jobs = [Job(packed(*part), work, folder) for part in parts]
    try:
        names = cluster.submit(jobs, folder, work, most or size)
    except BaseException:
        shutil.rmtree(folder)
        raise
    addresses = {n: [run.address for run in part] for n, part in zip(names, parts, strict=True)}
    atomic.write(_table(folder), json.dumps(addresses).encode(), replace=True)
    return Batch(folder, addresses)


def submitted(store: Path) -> Iterator[Batch]:
    """The arrays that have been handed in for a store and are not cleared away."""
    for folder in sorted((store.absolute() / FOLDER).glob("*/")):
        try:
            addresses: Any = json.loads(_table(folder).read_bytes())
            yield Batch(folder, {str(job): [*map(str, some)] for job, some in addresses.items()})
        except (OSError, ValueError, AttributeError, TypeError):  # no such folder
            continue


def _table(folder: Path) -> Path:
    return folder / "jobs.json"
