"""Archived records are the records that were written, and an archive is never changed."""

import dataclasses
import json
import math
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_records import RECORD, at

from recall_arena.records import (
    Cost,
    DamagedRecord,
    Outcome,
    Provenance,
    Record,
    Store,
    Tally,
    archive,
)
from recall_arena.records.archive import Archive, pack
from recall_arena.records.record import to_json

INT64 = st.integers(-(2**63), 2**63 - 1)
counts = st.lists(INT64, max_size=5)
tables = st.lists(counts, max_size=4)
text = st.text(max_size=8)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)
tallies = st.builds(Tally, counts, counts, counts, tables, tables, counts, counts)
records = st.builds(
    Record,
    address=st.text("0123456789abcdef", min_size=16, max_size=16),
    run=st.dictionaries(text, json_values, max_size=4),
    outcome=st.builds(
        Outcome,
        ended_by=st.sampled_from(["solved", "budget", "diverged"]),
        steps=INT64,
        solved_at=st.none() | INT64,
        losses=st.lists(st.floats(), max_size=5),
        checks=tallies,
        contexts=tallies,
    ),
    cost=st.builds(Cost, INT64, INT64, st.floats(), st.floats()),
    provenance=st.builds(Provenance, st.dictionaries(text, text), text, INT64, text, text),
)
sets_of_records = st.lists(records, max_size=4, unique_by=lambda record: record.address)


def lines(records: list[Record]) -> list[bytes]:
    """The records to the last bit, those among them that hold a NaN too."""
    return [to_json(record) for record in records]


def folder_of(path: Path, *records: Record) -> Store:
    store = Store(path)
    for record in records:
        store.write(record)
    return store


# The type checks, which are on in tests, look at random items of lists.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")
@given(sets_of_records)
def test_what_is_archived_is_read_to_the_last_bit(tmp_path_factory, records):
    path = tmp_path_factory.mktemp("archive") / "all.parquet"
    path.write_bytes(pack(records))
    records.sort(key=lambda record: record.address)

    store = Store(path.parent)
    assert lines(list(store)) == lines(records)
    assert lines([Archive(path).read(record.address) for record in records]) == lines(records)


def test_odd_numbers_and_empty_curves_come_back(tmp_path):
    numbers = [math.inf, -math.inf, -0.0, 5e-324, math.nextafter(1, 2), 2**0.5 * 1e300]
    empty = Tally([], [], [], [], [], [], [])
    ragged = Tally([2**40], [2**63 - 1], [0], [[], [1, 2]], [[0], []], [3], [0])
    outcome = Outcome("diverged", 7, None, numbers, checks=empty, contexts=ragged)
    record = dataclasses.replace(RECORD, run={"seed": 2**64, "clip": math.inf}, outcome=outcome)
    (tmp_path / "all.parquet").write_bytes(pack([record]))

    (read,) = Store(tmp_path)
    assert read == record
    assert json.dumps(read.outcome.losses) == json.dumps(numbers)


def test_what_would_be_read_differently_is_not_packed():
    outcome = dataclasses.replace(RECORD.outcome, steps=2**63)
    with pytest.raises(ValueError, match="record 0123456789abcdef would not be read as it is"):
        pack([dataclasses.replace(RECORD, outcome=outcome)])


def test_the_same_records_give_the_same_file_in_whatever_order(tmp_path):
    several = [at(address, parameters=3) for address in "abc"]
    assert pack(several) == pack(reversed(several))
    assert pack(several) != pack(several[:2])


# A store of both kinds


def test_a_store_is_read_alike_as_files_as_an_archive_and_as_both(tmp_path):
    several = [at(address, parameters=number) for number, address in enumerate("abcd")]
    files = folder_of(tmp_path / "files", *several)
    assert archive(files, tmp_path / "archive" / "all.parquet") == 4
    archive(folder_of(tmp_path / "half", *several[1:3]), tmp_path / "both" / "half.parquet")
    both = folder_of(tmp_path / "both", several[0], several[3])

    for store in (files, Store(tmp_path / "archive"), both):
        assert list(store) == several
        assert store.addresses() == ["a", "b", "c", "d"]
        assert store.read_all(["c", "x", "a"]) == [several[2], several[0]]
        assert "b" in store
        assert "x" not in store
        with pytest.raises(KeyError, match="no record x in "):
            store.read("x")
    assert both.written() == ["a", "d"]


def test_an_archived_record_is_not_written_again(tmp_path):
    archive(folder_of(tmp_path / "files", at("a", parameters=1)), tmp_path / "all.parquet")
    store = folder_of(tmp_path, at("a", parameters=2))
    assert store.written() == []
    assert store.read("a").cost.parameters == 1


def test_another_process_reads_the_archives_for_itself(tmp_path):
    archive(folder_of(tmp_path / "files", at("a")), tmp_path / "all.parquet")
    store = Store(tmp_path)
    assert "a" in store
    assert len(pickle.dumps(store)) < 300
    assert list(pickle.loads(pickle.dumps(store))) == [at("a")]


# Parts


def test_a_second_archive_holds_only_what_is_new(tmp_path):
    runs = folder_of(tmp_path / "runs", at("a"), at("c"))
    archive(runs, tmp_path / "published" / "first.parquet")
    runs.write(at("b"))
    assert archive(runs, tmp_path / "published" / "second.parquet") == 1

    assert list(Archive(tmp_path / "published" / "second.parquet").rows) == ["b"]
    assert list(Store(tmp_path / "published")) == [at("a"), at("b"), at("c")]
    assert runs.written() == ["a", "b", "c"], "the files stay where they are"


def test_an_archive_is_never_written_again(tmp_path):
    path = tmp_path / "all.parquet"
    archive(folder_of(tmp_path / "one", at("a")), path)
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match=r"all\.parquet exists"):
        archive(folder_of(tmp_path / "two", at("b")), path)
    assert path.read_bytes() == before


def test_nothing_new_is_no_archive(tmp_path):
    runs = folder_of(tmp_path / "runs", at("a"))
    archive(runs, tmp_path / "first.parquet")
    for store in (runs, Store(tmp_path / "nowhere")):
        with pytest.raises(ValueError, match=r"has no records that .* does not have archived"):
            archive(store, tmp_path / "second.parquet")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first.parquet", "runs"]


def test_its_name_tells_that_it_is_parquet(tmp_path):
    with pytest.raises(ValueError, match=r"ends in \.parquet, got .*records\.json"):
        archive(folder_of(tmp_path, at("a")), tmp_path / "records.json")


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[: len(content) // 2],
        lambda content: content[4:],
        lambda content: b"not Parquet at all",
    ],
    ids=["empty", "half", "without its head", "text"],
)
def test_a_damaged_archive_is_named(tmp_path, damage):
    path = tmp_path / "all.parquet"
    path.write_bytes(damage(pack([RECORD])))
    with pytest.raises(DamagedRecord, match=r"all\.parquet is not an archive of records"):
        list(Store(tmp_path))
