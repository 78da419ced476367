"""What an executor tells while it works."""

from dataclasses import dataclass

from recall_arena.runs import Progress


@dataclass(frozen=True)
class Advanced:
    """A run has come further."""

    address: str
    progress: Progress


@dataclass(frozen=True)
class Finished:
    """A run is complete and its record is in the store."""

    address: str


@dataclass(frozen=True)
class Failed:
    """A run broke off with an error; it left no record."""

    address: str
    reason: str


Event = Advanced | Finished | Failed
