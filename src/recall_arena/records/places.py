"""Where, in the folder of a store, stands what belongs to a run beside its record.

Each raises ValueError for what is no address, which might lead out of the folder.
"""

from pathlib import Path

from recall_arena.records.identity import ADDRESS

UNFINISHED = "unfinished"
WEIGHTS = "weights"


def weights_path(store: Path, address: str) -> Path:
    """The trained weights."""
    return _place(store / WEIGHTS, address, ".safetensors")


def end_path(store: Path, address: str) -> Path:
    """What the run came to at its end, from which a run that extends it goes on."""
    return _place(store / WEIGHTS, address, ".end.safetensors")


def snapshot_path(store: Path, address: str) -> Path:
    """What an unfinished run has come to."""
    return _place(store / UNFINISHED, address, ".safetensors")


def lease_path(store: Path, address: str) -> Path:
    """The file by whose lock a process has the run to itself."""
    return _place(store / UNFINISHED, address, ".lock")


def _place(folder: Path, address: str, suffix: str) -> Path:
    if not ADDRESS.fullmatch(address):
        raise ValueError(f"{address!r} is no address of a run")
    return folder / f"{address}{suffix}"
