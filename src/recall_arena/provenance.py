"""Where a record comes from: this installation, these kernels, this machine, now."""

import datetime
import platform
from collections.abc import Iterable
from importlib.metadata import packages_distributions, version

import torch

from recall_arena.kernels import native
from recall_arena.names import package_of
from recall_arena.records import Provenance
from recall_arena.sources import package_build

OURS = "recall_arena"


def provenance(kinds: Iterable[type] = ()) -> Provenance:
    """What a record says of its making; `kinds` are the classes that it was made with.

    Modules that they have from other packages are named, and the versions of those packages.
    """
    modules = sorted({kind.__module__ for kind in kinds if package_of(kind.__module__) != OURS})
    return Provenance(
        versions={
            "python": platform.python_version(),
            **{name: version(name) for name in ("recall-arena", "torch", "numpy")},
            **_versions({package_of(module) for module in modules}),
        },
        kernels=native.describe(),
        threads=torch.get_num_threads(),
        machine=f"{platform.system()} {platform.machine()}",
        finished=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        kernels_build=native.build(),
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
