"""What executors are told about the runs that they execute."""

import os
from dataclasses import dataclass

from recall_arena.devices import check_device
from recall_arena.records import Store, weights_path
from recall_arena.runs import Run

SECONDS_BETWEEN_SNAPSHOTS = 30.0


def cores() -> int:
    """How many processors this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on this platform
        return os.cpu_count() or 1


@dataclass(frozen=True)
class Work:
    """Where records go, and how runs are executed.

    threads           of each run
    keep_weights      whether weights are kept, and what a longer run would go on from
    snapshot_seconds  after so many what an unfinished run has come to is written to the store
    device            where each run's tensors are, one of `devices.DEVICES`
    """

    store: Store
    threads: int = 1
    keep_weights: bool = False
    snapshot_seconds: float = SECONDS_BETWEEN_SNAPSHOTS
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise ValueError(f"threads must be at least 1, got {self.threads}")
        if not self.snapshot_seconds >= 0:
            raise ValueError(f"snapshot_seconds must be at least 0, got {self.snapshot_seconds}")
        check_device(self.device)

    @property
    def gpus(self) -> int:
        """How many of a cluster's GPUs a run needs; one that it is not given it does not see."""
        return 1 if self.device == "cuda" else 0

    def has(self, address: str) -> bool:
        """Whether a run's record is there, and its weights where they are to be kept."""
        weights = weights_path(self.store.folder, address)
        return address in self.store and (weights.exists() or not self.keep_weights)

    def done(self, run: Run) -> bool:
        """The same of a run."""
        return self.has(run.address)

    def missing(self, runs: list[Run]) -> list[Run]:
        """Those of the runs that are not done, each once, in their order."""
        return list({run.address: run for run in runs if not self.done(run)}.values())
