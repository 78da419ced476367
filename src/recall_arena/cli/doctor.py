"""`recall doctor`."""

import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import torch

from recall_arena.cli import options
from recall_arena.cli.command import Command
from recall_arena.cli.console import say, say_json
from recall_arena.executors import cores
from recall_arena.provenance import provenance

PACKAGES = (
    "scipy",
    "pydantic",
    "tyro",
    "matplotlib",
    "polars",
    "transformers",
    "mambapy",
)


@dataclass(frozen=True)
class Doctor(Command):
    """Versions, threads, and which kernels run and why."""

    json: options.Json = False

    def run(self) -> int:
        made = provenance()
        facts = {
            "machine": made.machine,
            "executable": sys.executable,
            **made.versions,
            **{name: _version(name) for name in PACKAGES},
            "cores": str(cores()),
            "torch threads": str(torch.get_num_threads()),
            "kernels": made.kernels,
            "kernels' build": made.kernels_build or "none",
            "package's build": str(made.package_build),
        }
        if self.json:
            say_json(facts)
        else:
            for name, value in facts.items():
                say(f"{name:<15} {value}")
        return 0


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
