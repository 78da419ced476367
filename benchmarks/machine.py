"""The machine: what it is, and how many of its cores a run may use."""

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from benchmarks.rows import Origin
from recall_arena.executors.memory import keep_freed_memory
from recall_arena.kernels import native

ROOT = Path(__file__).parent.parent
PACKAGES = ("torch", "numpy", "jax", "jaxlib", "mambapy", "transformers")


def confine(threads: int) -> None:
    """Give every contender the same number of cores; call before JAX is imported.

    The variables say it to each library; the affinity, where the system has one, makes sure,
    for XLA's thread pools obey only some of them.
    """
    eigen = str(threads > 1).lower()
    os.environ["XLA_FLAGS"] = (
        f"--xla_cpu_multi_thread_eigen={eigen} intra_op_parallelism_threads={threads}"
    )
    os.environ["NPROC"] = os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    torch.set_num_threads(threads)
    keep_freed_memory()  # as in a run's process; PyTorch's contenders gain from it too
    if sys.platform == "linux":
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, allowed[-threads:])


def processor() -> str:
    """The processor's name, where the system tells it."""
    return _fact("model name") or platform.processor() or platform.machine()


def _fact(name: str) -> str:
    """A line of Linux's /proc/cpuinfo; empty where there is none."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), "")


def versions() -> dict[str, str]:
    """The versions of what is compared; a package that is not installed is not listed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def name() -> str:
    """The processor, with its generation where AMD's virtual ones hide their number."""
    zen_3_or_4 = "Zen 4" if "avx512f" in _fact("flags").split() else "Zen 3"
    known = {23: "Zen 1 or 2", 25: zen_3_or_4, 26: "Zen 5"}
    family = _fact("cpu family")
    if _fact("vendor_id") == "AuthenticAMD" and processor() == "AMD EPYC":
        return f"{processor()} ({known.get(int(family), f'family {family}')})"
    return processor()


def origin(named: str) -> Origin:
    """Everything about this machine and code that a number may depend on."""
    return Origin(
        machine=named,
        commit=commit(),
        date=datetime.now(UTC).strftime("%Y-%m-%dT%H:%MZ"),
        kernels=native.describe(),
        versions=", ".join(f"{name} {number}" for name, number in versions().items()),
    )


def commit() -> str:
    """The commit of the checkout, -dirty if its code has changed since; or why there is none."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(ROOT), *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", "src", "native", "benchmarks")
        return git("rev-parse", "--short=7", "HEAD") + ("-dirty" if changed else "")
    except (FileNotFoundError, subprocess.CalledProcessError):
        return "no git checkout"
