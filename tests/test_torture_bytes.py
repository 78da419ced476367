"""A record, an archive, weights and a snapshot: cut anywhere, any bit flipped, it is found."""

import itertools
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from torture import Figures, Scale

from recall_arena.checkpoints import load_weights, save_weights
from recall_arena.evaluation import Contexts
from recall_arena.execution import Execution
from recall_arena.model import named
from recall_arena.records import DamagedRecord, Record, Store, archive, weights_path
from recall_arena.runs import Checks, Run, build
from recall_arena.snapshots import Unusable, restore_snapshot, save_snapshot
from recall_arena.tasks import AssociativeRecall
from recall_arena.training import Schedule

RUN = Run(
    AssociativeRecall(vocabulary=4),
    named("mamba", width=4, vocabulary=4),
    Schedule(rate=1e-2, steps=4, context=4, batch=2, warmup=0),
    Checks(every=2, sequences=10),
    Contexts(first=4, last=6, sequences=10),
)


@pytest.fixture(scope="module")
def ended() -> Execution:
    execution = Execution(RUN)
    list(execution)
    return execution


def a_record(execution: Execution, folder: Path) -> tuple[Path, Callable[[], object]]:
    store = Store(folder)
    store.write(execution.record())
    (path,) = store.files()
    return path, lambda: Store(folder).read(RUN.address)


def an_archive(execution: Execution, folder: Path) -> tuple[Path, Callable[[], object]]:
    store = Store(folder / "files")
    store.write(execution.record())
    path = folder / "all.parquet"
    archive(store, path)

    def read() -> object:
        (found,) = Store(folder).scan()
        if isinstance(found, DamagedRecord):
            raise found
        return found

    return path, read


def weights(execution: Execution, folder: Path) -> tuple[Path, Callable[[], object]]:
    path = weights_path(folder, RUN.address)
    save_weights(execution.model, path)
    return path, lambda: load_weights(build(RUN), path)


def a_snapshot(execution: Execution, folder: Path) -> tuple[Path, Callable[[], object]]:
    path = folder / "snapshot.safetensors"
    save_snapshot(execution, path)
    other = Execution(RUN)
    return path, lambda: restore_snapshot(other, path, RUN)


KINDS = {"record": a_record, "archive": an_archive, "weights": weights, "snapshot": a_snapshot}


def damages(content: bytes, cuts: int, flips: int) -> Iterator[bytes]:
    """The content cut at so many places, all if there are no more, and with bits flipped."""
    draw = random.Random(0)
    places = range(len(content)) if cuts >= len(content) else draw.sample(range(len(content)), cuts)
    yield from (content[:place] for place in places)
    for _ in range(flips):
        place, bit = draw.randrange(len(content)), draw.randrange(8)
        yield content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]


@pytest.mark.parametrize("kind", KINDS)
def test_no_damage_passes(
    kind: str, ended: Execution, tmp_path: Path, scale: Scale, figures: Figures
) -> None:
    path, read = KINDS[kind](ended, tmp_path)
    whole = read()
    content = path.read_bytes()
    found = tried = 0
    for damaged in damages(content, scale(60, 1 << 20), scale(100, 1_000)):
        path.write_bytes(damaged)
        tried += 1
        try:
            again = read()
        except (DamagedRecord, Unusable, ValueError):
            found += 1
        else:  # bytes that no reader looks at, such as padding, may change nothing
            assert isinstance(again, Record), "it was read as if nothing had happened"
            assert again == whole
    assert found >= 0.99 * tried
    path.write_bytes(content)
    read()
    figures(damages=tried, found=found)


def test_a_record_in_anothers_place_is_found(ended: Execution, tmp_path: Path) -> None:
    path, _ = a_record(ended, tmp_path)
    other = Execution(replace(RUN, seed=1))
    for _ in itertools.chain(other):
        pass
    with suppress(FileNotFoundError):
        (tmp_path / f"{other.run.address}.json").unlink()
    (tmp_path / f"{other.run.address}.json").write_bytes(path.read_bytes())
    with pytest.raises(DamagedRecord, match="it holds record"):
        Store(tmp_path).read(other.run.address)
