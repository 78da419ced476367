"""The index of a store saves time and nothing else: what is listed is what the records say."""

import dataclasses
import json
import os
import time
from pathlib import Path

import polars as pl
import pytest
from made_up import kept

from recall_arena import index
from recall_arena.frame import frame_of
from recall_arena.index import NAME, Contents, contents_of
from recall_arena.outcomes import runs_of
from recall_arena.records import Store, archive
from recall_arena.records.files import to_file
from recall_arena.records.sealed import seal, unseal

RECORDS = sorted((kept(seed) for seed in range(6)), key=lambda record: record.address)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store of six records, with an index however few they are and however new."""
    monkeypatch.setattr(index, "WORTH_AN_INDEX", 1)
    monkeypatch.setattr(index, "SETTLED", -1.0)
    store = Store(tmp_path / "store")
    for record in RECORDS:
        store.write(record)
    return store


def seen(store: Store) -> tuple[list[str], list[str]]:
    """Which addresses are listed, and which files as damaged; the frame is that of the records."""
    contents = contents_of(store)
    assert contents.frame.equals(frame_of(Store(store.folder)))
    return contents.table["address"].to_list(), [one.path.name for one in contents.damaged]


ALL = [record.address for record in RECORDS]


def read_files(store: Store, monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], Contents]:
    """The names of the files that a listing reads for itself."""
    names: list[str] = []
    scan = index.scan_file

    def listed(path: Path):  # type: ignore[no-untyped-def]
        names.append(path.name)
        return scan(path)

    monkeypatch.setattr(index, "scan_file", listed)
    contents = contents_of(store)
    monkeypatch.setattr(index, "scan_file", scan)
    return names, contents


def test_what_is_indexed_is_not_read_again(store: Store, monkeypatch) -> None:
    assert seen(store) == (ALL, [])
    assert (store.folder / NAME).exists()
    names, contents = read_files(store, monkeypatch)
    assert names == []
    assert contents.frame.equals(frame_of(RECORDS))


def test_new_changed_and_removed_files_are_noticed(store: Store, monkeypatch) -> None:
    seen(store)
    new = kept(seed=9)
    store.write(new)
    (store.folder / f"{ALL[0]}.json").unlink()
    other = dataclasses.replace(RECORDS[1], cost=dataclasses.replace(RECORDS[1].cost, parameters=7))
    (store.folder / f"{ALL[1]}.json").write_bytes(to_file(other))

    names, contents = read_files(store, monkeypatch)
    assert sorted(names) == sorted([f"{new.address}.json", f"{ALL[1]}.json"])
    assert contents.table["address"].to_list() == sorted([*ALL[1:], new.address])
    changed = contents.table.filter(pl.col("address") == ALL[1])
    assert changed["parameters"].to_list() == [7]
    seen(store)


def test_a_file_changed_within_its_size_and_time_is_noticed(store: Store) -> None:
    seen(store)
    path = store.folder / f"{ALL[0]}.json"
    before, content = path.stat(), bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert seen(store) == (ALL[1:], [path.name])


def test_damaged_files_are_named_each_time_and_never_indexed(store: Store) -> None:
    path = store.folder / f"{ALL[0]}.json"
    path.write_text("{")
    for _ in range(2):
        assert seen(store) == (ALL[1:], [path.name])
    path.write_bytes(to_file(RECORDS[0]))
    assert seen(store) == (ALL, [])


def break_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def other_version(path: Path) -> None:
    table, notes = unseal(path.read_bytes())
    path.write_bytes(seal(table.head(1), {**notes, "build": "another"}))


def forged(path: Path) -> None:
    """An index with a good checksum that knows of other files."""
    table, notes = unseal(path.read_bytes())
    files = dict.fromkeys(json.loads(notes["files"]), "1 1 1 1")
    path.write_bytes(seal(table.head(1), {"build": notes["build"], "files": json.dumps(files)}))


def no_index(path: Path) -> None:
    table, _ = unseal(path.read_bytes())
    path.write_bytes(seal(table))


@pytest.mark.parametrize(
    "damage",
    [break_off, other_version, forged, no_index, Path.unlink, lambda path: path.write_text("")],
    ids=["cut", "of another version", "forged", "an archive", "removed", "empty"],
)
def test_an_index_that_is_none_is_made_again(store: Store, damage, monkeypatch) -> None:
    seen(store)
    damage(store.folder / NAME)
    assert seen(store) == (ALL, [])
    assert read_files(store, monkeypatch)[0] == []


def test_a_record_that_is_archived_as_well_is_listed_once(store: Store) -> None:
    archive(store, store.folder / "all.parquet")
    for _ in range(2):
        assert seen(store) == (ALL, [])
    for path in store.files():
        path.unlink()
    for _ in range(2):
        assert seen(store) == (ALL, [])
    (store.folder / "all.parquet").unlink()
    assert seen(store) == ([], [])


def test_a_store_that_cannot_be_written_to_is_listed_without_an_index(store, monkeypatch) -> None:
    def refuse(path: Path, content: bytes, *, replace: bool) -> bool:
        raise PermissionError("read-only")

    monkeypatch.setattr(index.atomic, "write", refuse)
    assert seen(store) == (ALL, [])


def test_small_stores_and_files_just_written_have_no_index(tmp_path: Path, monkeypatch) -> None:
    store = Store(tmp_path)
    store.write(RECORDS[0])
    contents_of(store)
    monkeypatch.setattr(index, "WORTH_AN_INDEX", 1)
    contents_of(store)
    assert not (tmp_path / NAME).exists()


@pytest.mark.timeout(60)
def test_hundreds_of_records_are_listed_in_a_moment(store: Store) -> None:
    for seed in range(10, 400):
        store.write(kept(seed))
    contents_of(store)
    begun = time.perf_counter()
    contents = contents_of(store)
    assert contents.table.height == 396
    assert time.perf_counter() - begun < 5


def test_runs_are_those_of_the_whole_frame(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "AT_ONCE", 4)
    contents = contents_of(store)
    assert len(contents.runs) == 6
    assert contents.runs.equals(runs_of(contents.frame))
    empty = contents_of(Store(store.folder / "nowhere"))
    assert empty.runs.equals(runs_of(empty.frame))
