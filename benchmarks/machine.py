"""The machine: what it is, and how many of its cores a run may use."""

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from recall_arena.executors.memory import keep_freed_memory
from recall_arena.kernels import native

PACKAGES = ("torch", "numpy", "jax", "jaxlib", "mambapy", "transformers")


def confine(threads: int) -> None:
    """Give every contender the same number of cores; call before JAX is imported.

    The variables say it to each library; the affinity, where the system has one, makes sure,
    for XLA's thread pools obey only a part of them.
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
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """The versions of what is compared; a package that is not installed is not listed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def describe() -> dict[str, object]:
    """Everything about the machine that a number may depend on."""
    return {
        "processor": processor(),
        "system": platform.platform(),
        "kernels": native.describe(),
        "versions": versions(),
    }


def sentence(threads: int) -> str:
    """The same for people, under a table's title."""
    packages = ", ".join(f"{name} {number}" for name, number in versions().items())
    return f"{processor()}, {threads} thread(s); kernels: {native.describe()}; {packages}."
