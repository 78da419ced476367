"""A folder of records: a JSON file for each, Parquet archives of many, or both."""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from recall_arena import atomic
from recall_arena.records.archive import Archive, pack
from recall_arena.records.files import DamagedRecord, from_file, to_file
from recall_arena.records.identity import ADDRESS
from recall_arena.records.record import Record


class Store:
    """Records by address.  Any number of processes may use it at once.

    Archives are looked for once, when one is first needed.  What is named like a record or an
    archive and is none hides nothing else: iterating passes it over, and `scan` tells of it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[type["Store"], tuple[Path]]:
        return Store, (self.folder,)  # another process reads the archives for itself

    def __contains__(self, address: str) -> bool:
        """Whether a record is there, or something else in the place of its file."""
        if not ADDRESS.fullmatch(address):
            return False
        return os.path.lexists(self._path(address)) or address in self.archived

    def addresses(self) -> list[str]:
        """Those of all records, in their order; some may turn out to be damaged."""
        return sorted({*self.written(), *self.archived})

    def written(self) -> list[str]:
        """The addresses of those records that are JSON files, in their order."""
        return [path.stem for path in self.files() if ADDRESS.fullmatch(path.stem)]

    def files(self, suffix: str = ".json") -> list[Path]:
        """All that is named like files of records, in the order of their names.

        Raises OSError if the folder exists and cannot be read.
        """
        try:
            found = sorted(self.folder.iterdir())
        except FileNotFoundError:
            return []
        return [one for one in found if one.suffix == suffix and not one.name.startswith(".")]

    def find(self, beginning: str) -> str:
        """The address that begins so; ValueError if there is none, or more than one."""
        if ADDRESS.fullmatch(beginning) and beginning in self:
            return beginning
        matches = [known for known in self.addresses() if known.startswith(beginning)]
        if len(matches) != 1:
            many = f"{len(matches)} records begin with" if matches else "no record begins with"
            raise ValueError(f"{many} {beginning!r} in {self.folder}")
        return matches[0]

    def read(self, address: str) -> Record:
        """Raises KeyError if there is no such record, DamagedRecord if its file is broken.

        An archived record stands in for a broken file.
        """
        try:
            return from_file(self._path(address))
        except (FileNotFoundError, DamagedRecord) as error:
            if address in self.archived:
                return self.archived[address].read(address)
            if isinstance(error, DamagedRecord):
                raise
        raise KeyError(f"no record {address} in {self.folder}")

    def read_all(self, addresses: Iterable[str]) -> list[Record]:
        """Those of the addresses that have a record that can be read, in their order."""
        found = map(self._tried, addresses)
        return [one for one in found if isinstance(one, Record)]

    def __iter__(self) -> Iterator[Record]:
        return iter(self.read_all(self.addresses()))

    def scan(self) -> Iterator[Record | DamagedRecord]:
        """Every record once, and in the place of all else that is named like one why it is none."""
        seen: set[str] = set()
        for path in (*self.files(), *self.files(".parquet")):
            for one in scan_file(path):
                if isinstance(one, DamagedRecord):
                    yield one
                elif one.address not in seen:
                    seen.add(one.address)
                    yield one

    def write(self, record: Record) -> None:
        """Add a record, whole or not at all.  What is already there stays as it is.

        Raises DamagedRecord if that is no record, ValueError if no run can have produced this one.
        """
        content = to_file(record)
        path = self._path(record.address)
        if record.address in self or not atomic.write(path, content, replace=False):
            self.read(record.address)

    @cached_property
    def archived(self) -> dict[str, Archive]:
        """The archive of each record that is in one; those that cannot be read are passed over."""
        found: dict[str, Archive] = {}
        for path in reversed(self.files(".parquet")):
            with suppress(DamagedRecord, FileNotFoundError):
                archive = Archive(path)
                found |= dict.fromkeys(archive.rows, archive)
        return found

    def _tried(self, address: str) -> Record | None:
        try:
            return self.read(address)
        except (KeyError, DamagedRecord):
            return None

    def _path(self, address: str) -> Path:
        """Where a record is written; KeyError for what is no address, and might lead elsewhere."""
        if not ADDRESS.fullmatch(address):
            raise KeyError(f"no record {address} in {self.folder}: it is no address")
        return self.folder / f"{address}.json"


def scan_file(path: Path) -> Iterator[Record | DamagedRecord]:
    """The records in a file, or why they cannot be read; nothing if there is no such file."""
    try:
        if path.suffix == ".parquet":
            yield from Archive(path).scan()
        else:
            yield from_file(path)
    except DamagedRecord as damage:
        yield damage
    except FileNotFoundError:  # removed meanwhile
        return


def archive(store: Store, path: Path) -> int:
    """Pack a store's JSON records into a new archive, and return how many they are.

    Those that cannot be read, or that another archive in the same folder holds, are left out; no
    JSON file is removed.  Raises FileExistsError if the archive exists, ValueError if its name
    does not end in .parquet or there is nothing to pack.
    """
    if path.suffix != ".parquet":
        raise ValueError(f"an archive's name ends in .parquet, got {path}")
    if path.exists():
        raise FileExistsError(f"{path} exists, and an archive is never written again")
    beside = Store(path.parent).archived
    new = store.read_all(one for one in store.written() if one not in beside)
    if not new:
        raise ValueError(f"{store.folder} has no records that {path.parent} does not have archived")
    if not atomic.write(path, pack(new), replace=False):
        raise FileExistsError(f"{path} exists, and an archive is never written again")
    return len(new)
