"""What is damaged, foreign or made up is named and hides nothing; no flipped bit passes."""

import dataclasses
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_up import kept

from recall_arena.records import DamagedRecord, Record, Store, address_of
from recall_arena.records.archive import Archive, pack
from recall_arena.records.files import UNSEALED, to_file, to_json

RECORD = kept()
OTHER = kept(seed=1)
FLIPS = 400


def place(folder: Path, content: bytes, address: str = RECORD.address) -> Path:
    path = folder / f"{address}.json"
    path.write_bytes(content)
    return path


def reasons(store: Store) -> list[str]:
    """Why each thing in a store that is no record is none."""
    return [one.reason for one in store.scan() if isinstance(one, DamagedRecord)]


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def values(record: Record = RECORD) -> dict[str, Any]:
    return json.loads(to_json(record))


def earlier(record: Record = RECORD) -> dict[str, Any]:
    """A record as a version wrote it that knew neither builds nor hashes of weights."""
    fields = values(record)
    del fields["weights"]
    del fields["provenance"]["package_build"], fields["provenance"]["kernels_build"]
    return fields


# Bits and bytes


def test_a_bit_flipped_anywhere_in_a_record_is_found(tmp_path: Path) -> None:
    content, rng = to_file(RECORD), random.Random(0)
    for byte in range(len(content)):
        place(tmp_path, flipped(content, 8 * byte + rng.randrange(8)))
        with pytest.raises(DamagedRecord, match=RECORD.address):
            Store(tmp_path).read(RECORD.address)


def test_a_record_cut_at_any_byte_is_found(tmp_path: Path) -> None:
    content = to_file(RECORD)
    for size in range(len(content)):
        place(tmp_path, content[:size])
        with pytest.raises(DamagedRecord, match=RECORD.address):
            Store(tmp_path).read(RECORD.address)


def test_a_bit_flipped_anywhere_in_an_archive_is_found(tmp_path: Path) -> None:
    content, rng = pack([RECORD, OTHER]), random.Random(0)
    path = tmp_path / "all.parquet"
    for _ in range(FLIPS):
        path.write_bytes(flipped(content, rng.randrange(8 * len(content))))
        with pytest.raises(DamagedRecord, match=r"all\.parquet is not an archive of records"):
            Archive(path)


@pytest.mark.parametrize("size", [0, 1, 4, 100, 0.5, -1])
def test_an_archive_that_was_cut_is_found(tmp_path: Path, size: float) -> None:
    content = pack([RECORD])
    path = tmp_path / "all.parquet"
    path.write_bytes(content[: size if isinstance(size, int) else int(len(content) * size)])
    with pytest.raises(DamagedRecord, match=r"all\.parquet is not an archive of records"):
        Archive(path)
    assert list(Store(tmp_path)) == []


def test_an_earlier_record_is_read_and_no_flipped_bit_in_it_ends_in_a_traceback(
    tmp_path: Path,
) -> None:
    run = RECORD.run | {"revision": UNSEALED}
    old = dataclasses.replace(RECORD, run=run, address=address_of(run))
    content = json.dumps(earlier(old)).encode()
    place(tmp_path, content, old.address)
    read = Store(tmp_path).read(old.address)
    assert (read.outcome, read.weights) == (RECORD.outcome, None)
    assert read.provenance.package_build is None

    rng, silent = random.Random(0), 0
    for byte in range(len(content)):
        place(tmp_path, flipped(content, 8 * byte + rng.randrange(8)), old.address)
        found = list(Store(tmp_path).scan())
        assert len(found) == 1
        silent += isinstance(found[0], Record)
    assert silent < len(content) / 4, "those that only change a loss, seconds or provenance"


def test_a_record_that_should_have_a_checksum_is_not_taken_for_an_earlier_one(
    tmp_path: Path,
) -> None:
    for content in (to_json(RECORD), json.dumps(earlier()).encode()):
        place(tmp_path, content)
        assert "its checksum is missing" in reasons(Store(tmp_path))[0]


# Made up


def changed(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """What puts a value at a path such as outcome.checks.at.0."""

    def change(fields: dict[str, Any]) -> None:
        *inner, last = path.split(".")
        inside: Any = fields
        for key in inner:
            inside = inside[int(key) if key.isdigit() else key]
        inside[int(last) if last.isdigit() else last] = value

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (changed("run.seed", 5), "is not the hash of its run"),
        (changed("address", OTHER.address), "is not the hash of its run"),
        (changed("outcome.contexts.correct.0", 9), "contexts.correct is not within its whole"),
        (changed("outcome.contexts.correct.0", -1), "contexts.correct is not within its whole"),
        (changed("outcome.contexts.correct.0", 0), "by query do not add up"),
        (changed("outcome.contexts.correct_by_query.0", [0]), "by query do not add up"),
        (changed("outcome.contexts.correct_by_query.0", [1, 0]), "of other queries"),
        (changed("outcome.contexts.total_by_query", [[4]]), "another number of rows"),
        (changed("outcome.contexts.correct_by_query", []), "another number of rows"),
        (changed("outcome.contexts.total.0", 5), "contexts.total is not of 4 sequences"),
        (changed("outcome.contexts.total.0", 0), "contexts.total is not of 4 sequences"),
        (changed("outcome.contexts.total_repeats.1", 5), "total_repeats is not within"),
        (changed("outcome.contexts.correct_repeats.2", 1), "correct_repeats is not within"),
        (changed("outcome.contexts.total", [4, 4, 4]), "3 rows of total, 4 of at"),
        (changed("outcome.contexts.at.3", 6), "contexts are not the lengths"),
        (changed("outcome.contexts.at.1", 2), "contexts.at does not rise"),
        (changed("outcome.checks.at.2", 29), "checks are not at every 10 steps"),
        (changed("outcome.steps", 29), "29 steps, ended by budget, of a budget of 30"),
        (changed("outcome.ended_by", "solved"), "ended by solved, but solved at None"),
        (changed("outcome.solved_at", 10), "ended by budget, but solved at 10"),
        (changed("outcome.losses.0", float("nan")), "losses are not one finite number a check"),
        (changed("outcome.losses", [1.0]), "losses are not one finite number a check"),
        (changed("cost.training_seconds", float("inf")), "cost.training_seconds is inf"),
        (changed("cost.parameters", -1), "cost.parameters is -1"),
        (changed("outcome.steps", 30.0), "outcome.steps: should be a valid integer, got 30.0"),
        (changed("outcome.ended_by", "boredom"), "outcome.ended_by: should be 'solved'"),
        (changed("outcome.mood", "good"), "outcome.mood: unexpected keyword argument"),
    ],
)
def test_numbers_that_no_run_can_have_produced_are_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], reason: str
) -> None:
    """Without a checksum, as an earlier version wrote records and as anyone could make one."""
    fields = earlier()
    change(fields)
    place(tmp_path, json.dumps(fields).encode())
    with pytest.raises(DamagedRecord) as error:
        Store(tmp_path).read(RECORD.address)
    assert reason in error.value.reason
    assert "\n" not in str(error.value)


def test_another_runs_record_under_this_ones_name_is_refused(tmp_path: Path) -> None:
    place(tmp_path, to_file(OTHER))
    with pytest.raises(DamagedRecord, match=f"it holds record {OTHER.address}"):
        Store(tmp_path).read(RECORD.address)


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ({"schedule": {"rate": 0.1}}, "its run is not described as here: schedule.steps"),
        ({"model": {"layers": [{"kind": "mamba"}]}}, "its run is not described as here: model.la"),
        ({"seed": 2**63}, "its run is not described as here: seed"),
        ({"contexts": {"first": 2, "last": 9, "stride": 0}}, "described as here: contexts.stride"),
    ],
)
def test_a_run_that_tables_cannot_hold_is_refused(
    tmp_path: Path, part: dict[str, Any], reason: str
) -> None:
    fields = earlier()
    fields["run"] |= part
    fields["address"] = address_of(fields["run"])
    place(tmp_path, json.dumps(fields).encode(), fields["address"])
    assert reason in reasons(Store(tmp_path))[0]


def test_a_number_of_more_digits_than_python_reads_is_refused(tmp_path: Path) -> None:
    text = json.dumps(earlier()).replace('"seed": 0', '"seed": 1' + "0" * 5000)
    place(tmp_path, text.encode())
    assert "is not a record that can be read" in reasons(Store(tmp_path))[0]


def test_tasks_and_mixers_that_nobody_here_knows_are_records_all_the_same(tmp_path: Path) -> None:
    run = RECORD.run | {"task": {"kind": "sorting", "depth": 3}}
    run["model"] = {**run["model"], "layers": ["hyena(order=3)"]}
    foreign = dataclasses.replace(RECORD, run=run, address=address_of(run))
    store = Store(tmp_path)
    store.write(foreign)
    assert list(store) == [foreign]


def test_a_record_that_another_version_wrote_says_which(tmp_path: Path) -> None:
    fields = values()
    fields["outcome"]["elapsed"] = 3
    fields["provenance"]["versions"]["recall-arena"] = "7.0.0"
    place(tmp_path, json.dumps(fields).encode())
    (reason,) = reasons(Store(tmp_path))
    assert "outcome.elapsed: unexpected keyword argument, got 3" in reason
    assert "recall-arena 7.0.0 wrote it" in reason


# Foreign


def loop(path: Path) -> None:
    path.symlink_to(path)


def sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 10**12)


FOREIGN: dict[str, tuple[Callable[[Path], object], str]] = {
    "a folder": (lambda path: path.mkdir(), "is a folder"),
    "a link to nothing": (lambda path: path.symlink_to("nowhere"), "is a link to nothing"),
    "a link to itself": (loop, "cannot be read (Too many levels of symbolic links)"),
    "a pipe": (os.mkfifo, "is no file with a content"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "is no file with a content"),
    "a terabyte": (sparse, "has 1,000,000,000,000 bytes, more than any record"),
    "an empty file": (lambda path: path.touch(), "is not "),
    "text": (lambda path: path.write_text("mine"), "is not "),
    "no text": (lambda path: path.write_bytes(b"\xff\xfe\0"), "is not "),
    "depth": (lambda path: path.write_text("[" * 10**6), "is not "),
    "another object": (lambda path: path.write_text('{"name": "x"}'), "is not "),
}


@pytest.mark.parametrize("suffix", [".json", ".parquet"])
@pytest.mark.parametrize("kind", FOREIGN)
def test_what_is_no_record_is_named_and_hides_nothing(
    tmp_path: Path, kind: str, suffix: str
) -> None:
    make, reason = FOREIGN[kind]
    path = tmp_path / f"{OTHER.address}{suffix}"
    store = Store(tmp_path)
    store.write(RECORD)
    make(path)
    before = os.lstat(path)

    assert list(store) == store.read_all([OTHER.address, RECORD.address]) == [RECORD]
    (damage,) = (one for one in store.scan() if isinstance(one, DamagedRecord))
    assert damage.path == path
    assert reason in damage.reason
    if suffix == ".json":
        assert damage.address == OTHER.address
        with pytest.raises(DamagedRecord, match=OTHER.address):
            store.write(OTHER)
    assert os.lstat(path) == before, "it was touched"


@pytest.mark.parametrize("name", ["package.json", "0123.json", f"{RECORD.address} (1).json"])
def test_a_file_that_is_not_named_like_a_record_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(to_file(RECORD))
    assert reasons(Store(tmp_path)) == ["is not named like a record, by 16 hexadecimal digits"]
    assert list(Store(tmp_path)) == []


def test_other_files_are_nobodys_business(tmp_path: Path) -> None:
    Store(tmp_path).write(RECORD)
    (tmp_path / ".0123.partial").write_text("{")
    (tmp_path / ".index.parquet").write_text("{")
    (tmp_path / "notes.txt").write_text("mine")
    assert list(Store(tmp_path).scan()) == [RECORD]


def test_an_archived_record_stands_in_for_a_damaged_file(tmp_path: Path) -> None:
    (tmp_path / "all.parquet").write_bytes(pack([RECORD]))
    place(tmp_path, b"{")
    assert list(Store(tmp_path)) == [RECORD]
    assert len(reasons(Store(tmp_path))) == 1


@pytest.mark.parametrize("address", ["../outside", "/etc/passwd", "", "0123456789ABCDEF", "0" * 15])
def test_no_address_leads_out_of_the_store(tmp_path: Path, address: str) -> None:
    store = Store(tmp_path / "store")
    assert address not in store
    with pytest.raises(KeyError, match="it is no address"):
        store.read(address)
    with pytest.raises(ValueError, match="is not the hash of its run"):
        store.write(dataclasses.replace(RECORD, address=address))
    assert list(tmp_path.iterdir()) == []
