"""A folder of records: a JSON file for each, Parquet archives of many, or both."""

from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

from pydantic import ValidationError

from recall_arena import atomic
from recall_arena.records.archive import Archive, pack
from recall_arena.records.record import RECORD, DamagedRecord, Record, to_json


class Store:
    """Records by address.  Any number of processes may use it at once.

    Archives are looked for once, when one is first needed; a file that holds no record and is
    named like one raises DamagedRecord.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[type["Store"], tuple[Path]]:
        return Store, (self.folder,)  # another process reads the archives for itself

    def __contains__(self, address: str) -> bool:
        return self._path(address).exists() or address in self._archived

    def addresses(self) -> list[str]:
        """Those of all records, in their order."""
        return sorted({*self.written(), *self._archived})

    def written(self) -> list[str]:
        """The addresses of those records that are JSON files, in their order."""
        return sorted(path.stem for path in self.folder.glob("*.json"))

    def read(self, address: str) -> Record:
        """Raises KeyError if there is no such record, DamagedRecord if its file is broken."""
        path = self._path(address)
        try:
            return RECORD.validate_json(path.read_bytes())
        except FileNotFoundError:
            if address in self._archived:
                return self._archived[address].read(address)
            raise KeyError(f"no record {address} in {self.folder}") from None
        except ValidationError as error:
            first = error.errors()[0]["msg"]
            raise DamagedRecord(
                f"{path} is not a record ({first}); delete it to run again"
            ) from None

    def read_all(self, addresses: Iterable[str]) -> list[Record]:
        """Those of the addresses that have a record, in their order."""
        return [self.read(address) for address in addresses if address in self]

    def __iter__(self) -> Iterator[Record]:
        return map(self.read, self.addresses())

    def write(self, record: Record) -> None:
        """Add a record, whole or not at all.  What is already there stays as it is."""
        if record.address not in self:
            atomic.write(self._path(record.address), to_json(record), replace=False)

    @cached_property
    def _archived(self) -> dict[str, Archive]:
        archives = map(Archive, sorted(self.folder.glob("*.parquet"), reverse=True))
        return {address: archive for archive in archives for address in archive.rows}

    def _path(self, address: str) -> Path:
        return self.folder / f"{address}.json"


def archive(store: Store, path: Path) -> int:
    """Pack a store's JSON records into a new archive, and return how many they are.

    Those that another archive in the same folder holds are left out; no JSON file is removed.
    Raises FileExistsError if the archive exists, ValueError if its name does not end in
    .parquet or there is nothing to pack.
    """
    if path.suffix != ".parquet":
        raise ValueError(f"an archive's name ends in .parquet, got {path}")
    if path.exists():
        raise FileExistsError(f"{path} exists, and an archive is never written again")
    beside = [Archive(other) for other in path.parent.glob("*.parquet")]
    new = [one for one in store.written() if not any(one in other.rows for other in beside)]
    if not new:
        raise ValueError(f"{store.folder} has no records that {path.parent} does not have archived")
    content = pack(map(store.read, new))
    if not atomic.write(path, content, replace=False):
        raise FileExistsError(f"{path} exists, and an archive is never written again")
    return len(new)
