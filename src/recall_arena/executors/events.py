"""What an executor tells while it works."""

from dataclasses import dataclass

from recall_arena.execution import Progress


@dataclass(frozen=True)
class Advanced:
    """A run has come further."""

    address: str
    progress: Progress


@dataclass(frozen=True)
class Noted:
    """Something about a run that its owner should know, and that does not end it."""

    address: str
    text: str


@dataclass(frozen=True)
class Finished:
    """A run is complete and its record is in the store."""

    address: str


@dataclass(frozen=True)
class Failed:
    """A run broke off with an error; it left no record."""

    address: str
    reason: str


@dataclass(frozen=True)
class Busy:
    """Nothing new of a run: somebody else is at work on it, or it waits; it comes up again."""

    address: str


Event = Advanced | Noted | Finished | Failed | Busy
