"""Records are kept whole: written once, never seen half, and read as they were written."""

import dataclasses
import itertools
import math
import os
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import kept

from recall_arena.records import Provenance, Record, Store, Tally, address_of
from recall_arena.records.files import to_json

RECORD = kept()
TALLY = RECORD.outcome.contexts
SEVERAL = sorted((kept(seed) for seed in range(4)), key=lambda record: record.address)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "records")


# What is written is read


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
"""What a task or a model of another package may be described by."""


@st.composite
def tallies(draw: st.DrawFn, at: list[int], sequences: int) -> Tally:
    """Counts that agree, of a task with some queries or with none."""
    queries = draw(st.integers(0, 3))
    rows = []
    for _ in at:
        total = sequences * draw(st.integers(1, 3))
        cuts = sorted(draw(st.lists(st.integers(0, total), min_size=queries, max_size=queries)))
        asked = [b - a for a, b in itertools.pairwise([0, *cuts, total])] if queries else []
        right = [draw(st.integers(0, n)) for n in asked]
        correct = sum(right) if queries else draw(st.integers(0, total))
        repeats = draw(st.integers(0, correct))
        rows.append((total, correct, asked, right, repeats + (total - correct) // 2, repeats))
    columns = [[row[i] for row in rows] for i in range(6)]
    return Tally(at, *(columns if queries else [*columns[:2], [], [], [], []]))


@st.composite
def records(draw: st.DrawFn) -> Record:
    """Records that keep the rules, of tasks and models that nobody here knows."""
    run = {**RECORD.run, "seed": draw(st.integers(-(2**63), 2**63 - 1))}
    run["task"] = {
        **draw(st.dictionaries(st.text(max_size=8), json_values)),
        "kind": draw(st.text()),
    }
    run["model"] = {**run["model"], "layers": draw(st.lists(st.text(max_size=8), max_size=3))}
    for known in ("vocabulary", "queries", "delay"):
        run["task"].pop(known, None)
    finite = st.floats(allow_nan=False, allow_infinity=False)
    outcome = dataclasses.replace(
        RECORD.outcome,
        losses=draw(st.lists(finite, min_size=3, max_size=3)),
        checks=draw(tallies([10, 20, 30], 8)),
        contexts=draw(tallies([2, 3, 4, 5], 4)),
    )
    text = st.text(max_size=8)
    made = draw(
        st.builds(Provenance, st.dictionaries(text, text), text, st.integers(1, 99), text, text)
    )
    return dataclasses.replace(
        RECORD, address=address_of(run), run=run, outcome=outcome, provenance=made
    )


def lines(records: Iterable[Record]) -> list[bytes]:
    """The records to the last bit, those among them too that hold a NaN somewhere."""
    return [to_json(record) for record in records]


# The type checks, which are on in tests, look at random items of lists.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")
@given(records())
def test_a_record_is_read_as_it_was_written(tmp_path_factory, record):
    store = Store(tmp_path_factory.mktemp("store"))
    store.write(record)

    assert record.address in store
    assert (
        lines([store.read(record.address)])
        == lines(store)
        == lines(store.scan())
        == lines([record])
    )


def test_the_file_is_named_by_the_address_and_readable_by_others(store):
    store.write(RECORD)
    (path,) = store.folder.iterdir()
    assert path.name == f"{RECORD.address}.json"
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
    for record in (SEVERAL[1], SEVERAL[2], SEVERAL[0]):
        store.write(record)
    assert list(store) == SEVERAL[:3]


def test_several_are_read_in_the_order_asked_for_without_those_that_are_missing(store):
    for record in SEVERAL[:3]:
        store.write(record)
    asked = [SEVERAL[2].address, "x", SEVERAL[0].address]
    assert store.read_all(asked) == [SEVERAL[2], SEVERAL[0]]


# What is there stays


def test_a_record_is_never_overwritten(store):
    store.write(kept(parameters=1))
    store.write(kept(parameters=2))
    assert store.read(RECORD.address).cost.parameters == 1
    assert len(list(store.folder.iterdir())) == 1


def test_what_a_run_cannot_have_produced_is_not_written(store):
    wrong = dataclasses.replace(RECORD, outcome=dataclasses.replace(RECORD.outcome, steps=7))
    with pytest.raises(ValueError, match="7 steps, ended by budget, of a budget of 30"):
        store.write(wrong)
    assert not store.folder.exists()


def test_without_hard_links_records_are_written_and_not_overwritten(store, monkeypatch):
    def refuse(self, target):
        raise PermissionError("no hard links here")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    store.write(kept(parameters=1))
    store.write(kept(parameters=2))
    assert store.read(RECORD.address).cost.parameters == 1
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
        store.write(dataclasses.replace(RECORD, run={**RECORD.run, "task": object()}))
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
        store.write(kept(parameters=number, checks=1000))

    for _ in range(5):
        threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (path,) = store.folder.iterdir()
        assert store.read(path.stem).cost.parameters in range(8)
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
    records = [kept(seed, checks=5000) for seed in range(6)]
    for record in records:
        source.write(record)
    addresses = sorted(record.address for record in records)
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
        assert len(record.outcome.losses) == 5000


# Tallies


def test_accuracy_is_right_answers_over_all_row_by_row():
    assert TALLY.accuracy() == [0.25, 1.0, 0.0, 0.5]


@pytest.mark.parametrize(("position", "accuracy"), [(2, 0.25), (3, 1.0), (4, 0.0)])
def test_accuracy_is_found_by_step_or_length(position, accuracy):
    assert TALLY.accuracy_at(position) == accuracy


def test_accuracy_where_nothing_was_measured_is_a_key_error():
    with pytest.raises(KeyError, match="nothing was measured at 6"):
        TALLY.accuracy_at(6)


def test_columns_of_different_lengths_are_noticed():
    with pytest.raises(ValueError, match="zip"):
        dataclasses.replace(TALLY, correct=[1]).accuracy()


# Light


def test_records_are_read_without_torch():
    code = "import recall_arena.records, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_losses_are_kept_to_the_last_bit(store):
    losses = [math.nextafter(1, 2), 1e-310, 2**0.5 * 1e30]
    outcome = dataclasses.replace(RECORD.outcome, losses=losses)
    store.write(dataclasses.replace(RECORD, outcome=outcome))
    assert store.read(RECORD.address).outcome.losses == losses
