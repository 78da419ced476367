"""Records are kept whole: written once, never seen half, and read as they were written."""

import dataclasses
import math
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recall_arena.records import (
    Cost,
    DamagedRecord,
    Outcome,
    Provenance,
    Record,
    Store,
    Tally,
)

TALLY = Tally(
    at=[10, 20, 30],
    total=[4, 8, 10],
    correct=[1, 8, 0],
    total_by_query=[[4], [3, 5], [0, 10]],
    correct_by_query=[[1], [3, 5], [0, 0]],
    total_repeats=[1, 0, 2],
    correct_repeats=[0, 0, 0],
)
RECORD = Record(
    address="0123456789abcdef",
    run={"task": {"kind": "associative-recall", "delay": 1}, "seed": 3},
    outcome=Outcome("budget", 30, None, [2.5, 0.1, 1 / 3], checks=TALLY, contexts=TALLY),
    cost=Cost(parameters=2768, state_size=608, training_seconds=1.25, evaluation_seconds=0.5),
    provenance=Provenance(
        {"torch": "2"}, "compiled", 1, "Linux x86_64", "2024-04-18T23:59:00+00:00"
    ),
)


def at(address: str, *, parameters: int = 0, losses: int = 3) -> Record:
    """A record at an address, told apart by its parameters, as long as its losses make it."""
    return dataclasses.replace(
        RECORD,
        address=address,
        outcome=dataclasses.replace(RECORD.outcome, losses=[1 / 3] * losses),
        cost=dataclasses.replace(RECORD.cost, parameters=parameters),
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "records")


# What is written is read


numbers = st.floats(allow_nan=False, allow_infinity=False)
counts = st.lists(st.integers(0, 2**40))
tables = st.lists(counts)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | numbers | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
tallies = st.builds(Tally, counts, counts, counts, tables, tables, counts, counts)
outcomes = st.builds(
    Outcome,
    ended_by=st.sampled_from(["solved", "budget", "diverged"]),
    solved_at=st.none() | st.integers(0, 2**40),
    losses=st.lists(numbers),
    checks=tallies,
    contexts=tallies,
)
records = st.builds(
    Record,
    address=st.text("0123456789abcdef", min_size=16, max_size=16),
    run=st.dictionaries(st.text(), values),
    outcome=outcomes,
    cost=st.builds(Cost, training_seconds=numbers, evaluation_seconds=numbers),
)


# The type checks, which are on in tests, look at random items of lists.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")
@given(records)
def test_a_record_is_read_as_it_was_written(tmp_path_factory, record):
    store = Store(tmp_path_factory.mktemp("store"))
    store.write(record)

    assert record.address in store
    assert store.read(record.address) == record
    assert list(store) == [record]


def test_the_file_is_named_by_the_address_and_readable_by_others(store):
    store.write(RECORD)
    (path,) = store.folder.iterdir()
    assert path.name == "0123456789abcdef.json"
    assert path.stat().st_mode & 0o777 == 0o644


def test_an_unknown_address_is_a_key_error_that_names_it(store):
    assert "0123456789abcdef" not in store
    with pytest.raises(KeyError, match="no record 0123456789abcdef in "):
        store.read("0123456789abcdef")


def test_a_folder_that_does_not_exist_holds_nothing(store):
    assert list(store) == []
    assert store.read_all(["0123456789abcdef"]) == []
    assert not store.folder.exists()


def test_records_come_in_the_order_of_their_addresses(store):
    for address in ("b", "c", "a"):
        store.write(at(address))
    assert [record.address for record in store] == ["a", "b", "c"]


def test_several_are_read_in_the_order_asked_for_without_those_that_are_missing(store):
    for address in ("a", "b", "c"):
        store.write(at(address))
    assert [record.address for record in store.read_all(["c", "x", "a"])] == ["c", "a"]


# What is there stays


def test_a_record_is_never_overwritten(store):
    store.write(at("a", parameters=1))
    store.write(at("a", parameters=2))
    assert store.read("a").cost.parameters == 1
    assert len(list(store.folder.iterdir())) == 1


def test_a_damaged_file_is_not_overwritten_either(store):
    store.folder.mkdir()
    (store.folder / "a.json").write_text("{")
    store.write(at("a"))
    assert (store.folder / "a.json").read_text() == "{"


def test_without_hard_links_records_are_written_and_not_overwritten(store, monkeypatch):
    def refuse(self, target):
        raise PermissionError("no hard links here")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    store.write(at("a", parameters=1))
    store.write(at("a", parameters=2))
    assert store.read("a").cost.parameters == 1
    assert len(list(store.folder.iterdir())) == 1


# Whole or not at all


def test_a_full_disk_leaves_nothing_behind(store, monkeypatch):
    def full(handle):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        store.write(RECORD)
    assert list(store.folder.iterdir()) == []


def test_what_is_no_json_leaves_nothing_behind(store):
    with pytest.raises(TypeError, match="not JSON serializable"):
        store.write(dataclasses.replace(RECORD, run={"task": object()}))
    assert RECORD.address not in store
    assert not store.folder.exists() or list(store.folder.iterdir()) == []


def test_a_record_is_not_seen_before_it_is_complete(store, monkeypatch):
    seen = []

    def look(handle):
        seen.append((RECORD.address in store, list(store)))

    monkeypatch.setattr(os, "fsync", look)
    store.write(RECORD)
    assert seen == [(False, [])]
    assert RECORD.address in store


def test_of_many_threads_that_write_one_address_one_is_first(store):
    begin = threading.Barrier(8)

    def write(number: int) -> None:
        begin.wait()
        store.write(at("a", parameters=number, losses=3000))

    for _ in range(5):
        threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (path,) = store.folder.iterdir()
        assert store.read("a").cost.parameters in range(8)
        path.unlink()


WRITER = """
import dataclasses, os, sys
from pathlib import Path
from recall_arena.records import Store

source, target = (Store(Path(folder)) for folder in sys.argv[1:])
for record in source:
    cost = dataclasses.replace(record.cost, parameters=os.getpid())
    target.write(dataclasses.replace(record, cost=cost))
"""


def test_many_processes_may_write_the_same_records_while_others_read(tmp_path):
    source, target = Store(tmp_path / "source"), Store(tmp_path / "target")
    addresses = [f"{number:04}" for number in range(12)]
    for address in addresses:
        source.write(at(address, losses=20_000))
    command = [sys.executable, "-c", WRITER, source.folder, target.folder]
    writers = [subprocess.Popen(command) for _ in range(3)]

    first_seen: dict[str, Record] = {}
    reads = 0
    while any(writer.poll() is None for writer in writers):
        for record in target.read_all(addresses):
            assert first_seen.setdefault(record.address, record) == record
            reads += 1

    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert reads > 0
    assert sorted(path.stem for path in target.folder.iterdir()) == addresses
    for record in target:
        assert first_seen.setdefault(record.address, record) == record
        assert record.cost.parameters in {writer.pid for writer in writers}
        assert len(record.outcome.losses) == 20_000


# What is damaged is said to be


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: b"",
        lambda text: text[: len(text) // 2],
        lambda text: b"\xff\xfe" + text,
        lambda text: b"[1, 2, 3]",
        lambda text: text.replace(b'"budget"', b'"bored"'),
        lambda text: text.replace(b'"outcome"', b'"income"'),
    ],
    ids=["empty", "half", "no text", "a list", "an unknown ending", "no outcome"],
)
def test_a_damaged_file_is_named(store, damage):
    store.write(RECORD)
    path = store.folder / "0123456789abcdef.json"
    path.write_bytes(damage(path.read_bytes()))

    with pytest.raises(DamagedRecord, match=r"0123456789abcdef\.json is not a record") as error:
        store.read("0123456789abcdef")
    assert str(path) in str(error.value)
    with pytest.raises(DamagedRecord):
        list(store)


def test_what_is_no_record_by_its_name_is_passed_over(store):
    store.write(RECORD)
    (store.folder / ".0123.partial").write_text("{")
    (store.folder / "notes.txt").write_text("mine")
    assert list(store) == [RECORD]


# Tallies


def test_accuracy_is_right_answers_over_all_row_by_row():
    assert TALLY.accuracy() == [0.25, 1.0, 0.0]


@pytest.mark.parametrize(("position", "accuracy"), [(10, 0.25), (20, 1.0), (30, 0.0)])
def test_accuracy_is_found_by_step_or_length(position, accuracy):
    assert TALLY.accuracy_at(position) == accuracy


def test_accuracy_where_nothing_was_measured_is_a_key_error():
    with pytest.raises(KeyError, match="nothing was measured at 2"):
        TALLY.accuracy_at(2)


def test_columns_of_different_lengths_are_noticed():
    with pytest.raises(ValueError, match="zip"):
        dataclasses.replace(TALLY, correct=[1]).accuracy()


# Light


def test_records_are_read_without_torch():
    code = "import recall_arena.records, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_losses_are_kept_to_the_last_bit(store):
    losses = [math.nextafter(1, 2), 1e-310, 0.1 + 0.2, 2**0.5 * 1e30]
    outcome = dataclasses.replace(RECORD.outcome, losses=losses)
    store.write(dataclasses.replace(RECORD, outcome=outcome))
    assert store.read(RECORD.address).outcome.losses == losses
