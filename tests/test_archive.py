"""Archived records are the records that were written, and an archive is never changed."""

import dataclasses
import json
import math
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import kept
from test_records import RECORD, SEVERAL, lines, records

from recall_arena.records import Record, Store, Tally, address_of, archive
from recall_arena.records.archive import Archive, pack


def folder_of(path: Path, *records: Record) -> Store:
    store = Store(path)
    for record in records:
        store.write(record)
    return store


# The type checks, which are on in tests, look at random items of lists.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")
@given(st.lists(records(), max_size=4, unique_by=lambda record: record.address))
def test_what_is_archived_is_read_to_the_last_bit(tmp_path_factory, records):
    path = tmp_path_factory.mktemp("archive") / "all.parquet"
    path.write_bytes(pack(records))
    records.sort(key=lambda record: record.address)

    store = Store(path.parent)
    assert lines(list(store)) == lines(records)
    assert lines([Archive(path).read(record.address) for record in records]) == lines(records)


def test_odd_numbers_and_empty_curves_come_back(tmp_path):
    numbers = [-0.0, 5e-324, 2**0.5 * 1e300]
    run = {**RECORD.run, "contexts": {**RECORD.run["contexts"], "last": 1}, "new": 2**64}
    run["schedule"] = {**run["schedule"], "clip": math.inf}
    outcome = dataclasses.replace(
        RECORD.outcome, losses=numbers, contexts=Tally([], [], [], [], [], [], [])
    )
    record = dataclasses.replace(RECORD, address=address_of(run), run=run, outcome=outcome)
    (tmp_path / "all.parquet").write_bytes(pack([record]))

    (read,) = Store(tmp_path)
    assert read == record
    assert json.dumps(read.outcome.losses) == json.dumps(numbers)


def test_what_would_be_read_differently_is_not_packed():
    made = dataclasses.replace(RECORD.provenance, threads=2**63)
    with pytest.raises(ValueError, match=f"record {RECORD.address} would not be read as it is"):
        pack([dataclasses.replace(RECORD, provenance=made)])


def test_the_same_records_give_the_same_file_in_whatever_order(tmp_path):
    assert pack(SEVERAL) == pack(reversed(SEVERAL))
    assert pack(SEVERAL) != pack(SEVERAL[:2])


# A store of both kinds


def test_a_store_is_read_alike_as_files_as_an_archive_and_as_both(tmp_path):
    several, addresses = SEVERAL, [one.address for one in SEVERAL]
    files = folder_of(tmp_path / "files", *several)
    assert archive(files, tmp_path / "archive" / "all.parquet") == 4
    archive(folder_of(tmp_path / "half", *several[1:3]), tmp_path / "both" / "half.parquet")
    both = folder_of(tmp_path / "both", several[0], several[3])

    for store in (files, Store(tmp_path / "archive"), both):
        assert list(store) == several
        assert store.addresses() == addresses
        assert store.read_all([addresses[2], "x", addresses[0]]) == [several[2], several[0]]
        assert addresses[1] in store
        assert sorted(lines(store.scan())) == sorted(lines(several))
        assert "x" not in store
        with pytest.raises(KeyError, match="no record x in "):
            store.read("x")
    assert both.written() == [addresses[0], addresses[3]]


def test_an_archived_record_is_not_written_again(tmp_path):
    archive(folder_of(tmp_path / "files", kept(parameters=1)), tmp_path / "all.parquet")
    store = folder_of(tmp_path, kept(parameters=2))
    assert store.written() == []
    assert store.read(RECORD.address).cost.parameters == 1


def test_another_process_reads_the_archives_for_itself(tmp_path):
    archive(folder_of(tmp_path / "files", RECORD), tmp_path / "all.parquet")
    store = Store(tmp_path)
    assert RECORD.address in store
    assert len(pickle.dumps(store)) < 300
    assert list(pickle.loads(pickle.dumps(store))) == [RECORD]


# Parts


def test_a_second_archive_holds_only_what_is_new(tmp_path):
    runs = folder_of(tmp_path / "runs", SEVERAL[0], SEVERAL[2])
    archive(runs, tmp_path / "published" / "first.parquet")
    runs.write(SEVERAL[1])
    assert archive(runs, tmp_path / "published" / "second.parquet") == 1

    assert list(Archive(tmp_path / "published" / "second.parquet").rows) == [SEVERAL[1].address]
    assert list(Store(tmp_path / "published")) == SEVERAL[:3]
    assert runs.written() == [one.address for one in SEVERAL[:3]], "the files stay where they are"


def test_an_archive_is_never_written_again(tmp_path):
    path = tmp_path / "all.parquet"
    archive(folder_of(tmp_path / "one", RECORD), path)
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match=r"all\.parquet exists"):
        archive(folder_of(tmp_path / "two", SEVERAL[1]), path)
    assert path.read_bytes() == before


def test_nothing_new_is_no_archive(tmp_path):
    runs = folder_of(tmp_path / "runs", RECORD)
    archive(runs, tmp_path / "first.parquet")
    for store in (runs, Store(tmp_path / "nowhere")):
        with pytest.raises(ValueError, match=r"has no records that .* does not have archived"):
            archive(store, tmp_path / "second.parquet")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first.parquet", "runs"]


def test_its_name_tells_that_it_is_parquet(tmp_path):
    with pytest.raises(ValueError, match=r"ends in \.parquet, got .*records\.json"):
        archive(folder_of(tmp_path, RECORD), tmp_path / "records.json")
