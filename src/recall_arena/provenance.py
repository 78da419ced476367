"""Where a record comes from: this installation, these kernels, this machine, now."""

import datetime
import platform
from collections.abc import Iterable
from importlib.metadata import packages_distributions, version

import torch

from recall_arena.devices import accelerator_name
from recall_arena.kernels import native
from recall_arena.names import package_of
from recall_arena.records import Provenance
from recall_arena.sources import package_build

OURS = "recall_arena"
PROCESSOR = torch.device("cpu")


def kernels_on(device: torch.device) -> str:
    """Which kernels run there, and why."""
    return native.describe() if device.type == "cpu" else f"definitions, {device.type}"


def provenance(kinds: Iterable[type] = (), device: torch.device = PROCESSOR) -> Provenance:
    """What a record says of its making, on a device; `kinds` are the classes it was made with.

    Modules that they have from other packages are named, and the versions of those packages.
    """
    modules = sorted({kind.__module__ for kind in kinds if package_of(kind.__module__) != OURS})
    return Provenance(
        versions={
            "python": platform.python_version(),
            **{name: version(name) for name in ("recall-arena", "torch", "numpy")},
            **_versions({package_of(module) for module in modules}),
        },
        kernels=kernels_on(device),
        threads=torch.get_num_threads(),
        machine=f"{platform.system()} {platform.machine()} {accelerator_name(device)}".rstrip(),
        finished=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        kernels_build=native.build() if device.type == "cpu" else None,
        package_build=package_build(),
        modules=modules,
    )


def _versions(packages: set[str]) -> dict[str, str]:
    """The versions of the distributions that these packages are of, if they are of any."""
    if not packages:
        return {}
    found = packages_distributions()
    distributions = {name for package in packages for name in found.get(package, [])}
    return {name: version(name) for name in sorted(distributions)}
