"""What thousands of runs ask of a store, and each of them of an executor: what clusters need."""

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import polars as pl
import pytest
from test_on_slurm import needs_slurm, slurm
from torture import Figures, Scale

from recall_arena import index
from recall_arena.records import Store

__all__ = ["slurm"]  # a fixture

pytestmark = pytest.mark.whole

TRAINING = (
    *("--schedule.rate", "0.01", "--schedule.context", "16", "--schedule.batch", "8"),
    *("--checks.sequences", "50", "--checks.running", "10000"),
)
WIDE = ("--schedule.steps", "3000", "--checks.every", "10", "--contexts.sequences", "20")
"""As many checks and lengths as a published run has."""


@dataclass(frozen=True)
class Ended:
    seconds: float
    megabytes: float
    """The most memory it had at once."""


PEAK = """
import atexit, re, runpy
from pathlib import Path

def tell():
    (peak,) = re.findall(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
    Path("peak").write_text(peak)

atexit.register(tell)
runpy.run_module("recall_arena", run_name="__main__", alter_sys=True)
"""
"""The command; its own peak, which `ru_maxrss` is not: that begins at the parent's."""


def ended(folder: Path, code: str, *words: str, env: Mapping[str, str] = os.environ) -> Ended:
    """A Python program in a folder; what it says stands in the folder's file."""
    begun = time.monotonic()
    with (folder / "said").open("w") as said:
        command = [sys.executable, "-c", code, *words]
        done = subprocess.run(command, cwd=folder, env=env, stdout=said, stderr=said)
    assert done.returncode == 0, (folder / "said").read_text()
    peak = folder / "peak"
    return Ended(
        time.monotonic() - begun, int(peak.read_text()) * 1024 / 1e6 if peak.exists() else 0.0
    )


def sweep(folder: Path, seeds: int, *words: str, env: Mapping[str, str] = os.environ) -> Ended:
    """The command, whose store is the folder's."""
    grid = "seed=" + ",".join(map(str, range(seeds)))
    return ended(folder, PEAK, "sweep", "--quiet", "--grid", grid, *TRAINING, *words, env=env)


MANY = """
import sys, time
from dataclasses import replace
from pathlib import Path
from recall_arena.records import Store, address_of

store = Store(Path("runs"))
(record,) = store
runs = [{**record.run, "seed": seed} for seed in range(1, int(sys.argv[1]))]
begun = time.monotonic()
for run in runs:
    store.write(replace(record, run=run, address=address_of(run)))
print(time.monotonic() - begun)
"""


def test_a_store_takes_ten_thousand_runs_and_their_study_goes_on(
    tmp_path: Path, scale: Scale, figures: Figures
) -> None:
    """One run is trained; the others are its copies with other seeds."""
    runs = scale(40, 10_000)
    sweep(tmp_path, 1, *WIDE)
    ended(tmp_path, MANY, str(runs))
    written = (runs - 1) / float((tmp_path / "said").read_text())
    files = Store(tmp_path / "runs").files()
    assert len(files) == runs

    again = sweep(tmp_path, runs, *WIDE)
    assert Store(tmp_path / "runs").files() == files
    assert again.megabytes < 700, "the sweep holds all that its runs have counted"
    figures(
        runs=runs,
        **{"records written a second": round(written)},
        **{"bytes a record": round(sum(path.stat().st_size for path in files) / runs)},
        **{"seconds of the sweep called again": round(again.seconds, 1)},
        **{"its MB": round(again.megabytes)},
    )


def test_a_store_of_five_thousand_records_is_listed_exported_and_reported(
    tmp_path: Path, scale: Scale, figures: Figures
) -> None:
    """First without an index, which the first command writes, then by way of it."""
    runs = scale(40, 5_000)
    sweep(tmp_path, 1, *WIDE)
    ended(tmp_path, MANY, str(runs))
    listing = ("runs", "ls", "--where", "seed == 7", "--json")
    first, then = ended(tmp_path, PEAK, *listing), ended(tmp_path, PEAK, *listing)
    (row,) = json.loads((tmp_path / "said").read_text())
    assert row["seed"] == 7
    assert (tmp_path / "runs" / index.NAME).exists() == (runs >= index.WORTH_AN_INDEX)
    exported = ended(tmp_path, PEAK, "runs", "export", "all.parquet")
    counts = pl.scan_parquet(tmp_path / "all.parquet").select("address").collect()
    assert counts["address"].n_unique() == runs
    reported = ended(tmp_path, PEAK, "report", "--scale", "smoke")
    figures(
        runs=runs,
        **{"seconds to find one without an index": round(first.seconds, 1)},
        **{"with one": round(then.seconds, 1), "its MB": round(then.megabytes)},
        **{"seconds to export all": round(exported.seconds, 1)},
        MB=round(exported.megabytes),
        **{"seconds of a report beside them": round(reported.seconds, 1)},
    )


def paced(store: Store) -> tuple[float, float]:
    """When the first record was written, and how many seconds on average after another."""
    times = sorted(path.stat().st_mtime for path in store.files())
    return times[0], (times[-1] - times[0]) / (len(times) - 1)


@pytest.mark.parametrize(
    "executor",
    [
        "local",
        pytest.param("ray", marks=pytest.mark.slow),
        pytest.param("slurm", marks=[pytest.mark.slow, needs_slurm]),
    ],
)
def test_an_executor_hands_runs_on(
    executor: str,
    tmp_path: Path,
    scale: Scale,
    figures: Figures,
    request: pytest.FixtureRequest,
) -> None:
    """Runs of a fraction of a second, two at once: what they take is what handing on takes."""
    environment = dict(os.environ)
    if executor == "slurm":
        environment = request.getfixturevalue("slurm")
    if executor == "ray":
        pytest.importorskip("ray")
    runs, begun = scale(6, 60), time.time()
    short = ("--schedule.steps", "30", "--contexts", "8,16", "--jobs", "2")
    sweep(tmp_path, runs, *short, "--executor", executor, env=environment)
    first, between = paced(Store(tmp_path / "runs"))
    assert between < 20
    figures(
        runs=runs,
        **{"seconds to the first record": round(first - begun, 1)},
        **{"core-seconds a run": round(2 * between, 2)},
    )


@pytest.mark.slow
def test_ray_beside_processes(tmp_path: Path, scale: Scale, figures: Figures) -> None:
    """Four runs of a minute each, two at once, from the command's start to its end."""
    pytest.importorskip("ray")
    took: dict[str, list[float]] = {"local": [], "ray": []}
    steps = str(scale(2_000, 120_000))
    for number in range(scale(1, 2)):
        for executor, seconds in took.items():
            folder = tmp_path / f"{executor} {number}"
            folder.mkdir()
            words = ("--schedule.steps", steps, "--contexts", "8,16", "--jobs", "2")
            seconds.append(sweep(folder, 4, *words, "--executor", executor).seconds)
    ratios = [ray / local for local, ray in zip(took["local"], took["ray"], strict=True)]
    assert median(ratios) < 1 + scale(900, 10) / 100
    stores = (Store(folder / "runs") for folder in tmp_path.iterdir() if folder.is_dir())
    for one, other in itertools.pairwise(stores):
        assert one.addresses() == other.addresses()
        assert [a.outcome for a in one] == [b.outcome for b in other]
    named = {f"{name} seconds": round(median(times), 1) for name, times in took.items()}
    figures(runs=4, **named, percent=round(100 * (median(ratios) - 1), 1))
