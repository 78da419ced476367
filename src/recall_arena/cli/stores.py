"""The folders and records that a command is pointed at; a mistake about them is one line."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryFile

from recall_arena import atomic
from recall_arena.cli.command import Mistake
from recall_arena.cli.console import errors
from recall_arena.records import DamagedRecord, Record, Store

WAY_OUT = "`recall runs rm ADDRESS` removes a record, and its run can then be made again"


def opened(folder: Path) -> Store:
    """A store to read; raises Mistake if there is no such folder."""
    if not folder.is_dir():
        raise Mistake(f"no records: {folder} is not a folder")
    return Store(folder)


def to_write(folder: Path) -> Store:
    """A store to add to, which need not exist; raises Mistake where there cannot be one."""
    for place in (folder, *folder.parents):
        if place.exists() and not place.is_dir():
            raise Mistake(f"nothing can be written to {folder}: {place} is not a folder")
    return Store(folder)


def prepare(*folders: Path) -> None:
    """Make folders and write to each, before any work, and remove what killed writers left there.

    Raises Mistake where nothing can be written.
    """
    for folder in folders:
        to_write(folder)
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            TemporaryFile(dir=folder).close()
            atomic.sweep(folder)
        except OSError as error:
            raise Mistake(f"nothing can be written to {folder}: {error.strerror}") from None


def record_named(folder: Path, address: str) -> Record:
    """The record whose address begins so; raises Mistake if there is none, or more than one."""
    store = opened(folder)
    return store.read(address_named(store, address))


def address_named(store: Store, beginning: str) -> str:
    """The address that begins so; raises Mistake if there is none, or more than one."""
    try:
        return store.find(beginning)
    except ValueError as error:
        raise Mistake(f"{error}; `recall runs ls` shows them") from None


def tell_damaged(damaged: list[DamagedRecord]) -> int:
    """Name what could not be read, with its reason; the exit code, 1 if there is any."""
    for damage in damaged:
        errors(str(damage))
    return 1 if damaged else 0


def damaged_among(addresses: Iterable[str], store: Store) -> Iterator[tuple[str, DamagedRecord]]:
    """Those of the addresses whose record cannot be read, and why."""
    for address in dict.fromkeys(addresses):
        try:
            if address in store:
                store.read(address)
        except DamagedRecord as damage:
            yield address, damage
