"""Weights are those of the run that their file is named by, whole and finite, or are refused."""

import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save

from recall_arena.checkpoints import load_weights, save_weights, weights_hash
from recall_arena.cli import main
from recall_arena.model import ModelSpec, SequenceModel
from recall_arena.records import Store, weights_path

ADDRESS = "0123456789abcdef"
FLIPS = 400


def model(width: int = 4, seed: int = 0, layers: tuple[str, ...] = ("attention",)) -> SequenceModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SequenceModel(ModelSpec(layers, vocabulary=8, width=width))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = weights_path(tmp_path, ADDRESS)
    save_weights(model(), path)
    return path


def test_weights_come_back_to_the_last_bit_in_files_that_are_the_same(path: Path) -> None:
    first, other = path.read_bytes(), model(seed=1)
    assert load_weights(other, path)
    assert weights_hash(other.state_dict()) == weights_hash(model().state_dict())
    assert weights_hash(other.state_dict()) != weights_hash(model(seed=1).state_dict())
    save_weights(model(), path)
    assert path.read_bytes() == first


def test_a_bit_flipped_anywhere_is_found(path: Path) -> None:
    content, rng = path.read_bytes(), random.Random(0)
    header = 8 + int.from_bytes(content[:8], "little")
    bits = [*range(64), *(rng.randrange(64, 8 * header) for _ in range(FLIPS))]
    bits += [rng.randrange(8 * header, 8 * len(content)) for _ in range(FLIPS)]
    into = model(seed=1)
    for bit in bits:
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=r"\.safetensors does not hold this model's weights"):
            load_weights(into, path)
    assert weights_hash(into.state_dict()) == weights_hash(model(seed=1).state_dict())


def test_a_file_cut_anywhere_is_found(path: Path) -> None:
    content, into = path.read_bytes(), model(seed=1)
    for size in range(len(content)):
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match="does not hold this model's weights"):
            load_weights(into, path)
    assert weights_hash(into.state_dict()) == weights_hash(model(seed=1).state_dict())


def test_weights_of_another_run_are_refused(path: Path) -> None:
    """Another seed of the same model: all shapes fit."""
    copied = path.with_stem("f" * 16)
    copied.write_bytes(path.read_bytes())
    with pytest.raises(ValueError, match=f"it holds those of {ADDRESS}"):
        load_weights(model(), copied)


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (model(width=6), r"is torch.float32 \(.*6.*\), and should be torch.float32"),
        (model(layers=("mamba",)), "is missing|is not in this model"),
        (model().double(), "is torch.float64 .*, and should be torch.float32"),
    ],
    ids=["wider", "another mixer", "another type"],
)
def test_weights_of_another_model_are_refused(
    path: Path, other: SequenceModel, reason: str
) -> None:
    save_weights(other, path)
    with pytest.raises(ValueError, match=reason) as error:
        load_weights(model(), path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(path: Path, number: float) -> None:
    broken = model()
    with torch.no_grad():
        next(iter(broken.parameters())).view(-1)[0] = number
    save_weights(broken, path)
    with pytest.raises(ValueError, match="is not finite, as where a training diverged"):
        load_weights(model(), path)


def test_refused_weights_leave_the_model_as_it_was(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4])
    untouched = model(seed=1)
    with pytest.raises(ValueError, match="does not hold"):
        load_weights(untouched, path)
    assert weights_hash(untouched.state_dict()) == weights_hash(model(seed=1).state_dict())


def test_weights_of_an_earlier_version_are_read_and_said_to_have_no_hash(path: Path) -> None:
    path.write_bytes(save(load(path.read_bytes())))
    assert not load_weights(model(seed=1), path)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (Path.mkdir, "it is a folder"),
        (os.mkfifo, "it is no file with a content"),
        (lambda path: path.symlink_to("/dev/zero"), "it is no file with a content"),
        (lambda path: path.symlink_to("nowhere"), "it is a link to nothing"),
        (lambda path: path.symlink_to(path), "it cannot be read"),
    ],
    ids=["a folder", "a pipe", "a device", "a link to nothing", "a link to itself"],
)
def test_what_is_no_file_is_refused(
    path: Path, make: Callable[[Path], object], reason: str
) -> None:
    path.unlink()
    make(path)
    with pytest.raises(ValueError, match=reason):
        load_weights(model(), path)


@pytest.mark.parametrize("address", ["../../x", "/etc/x", "", "0123", "0123456789ABCDEF"])
def test_no_address_leads_out_of_the_store(tmp_path: Path, address: str) -> None:
    with pytest.raises(ValueError, match="is no address of a run"):
        weights_path(tmp_path, address)


def test_the_record_holds_the_hash_of_its_weights_and_evaluate_holds_them_against_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = ("--schedule.steps", "10", "--contexts.stride", "190", "--quiet", "--json")
    store = ("--store", str(tmp_path))
    assert main(["train", *short, *store]) == 0
    address = json.loads(capsys.readouterr().out)["address"]
    path, record = weights_path(tmp_path, address), Store(tmp_path).read(address)
    weights = load(path.read_bytes())
    assert record.weights == weights_hash(weights)

    words = ("evaluate", address, "--contexts.last", "2", *store)
    assert main([*words]) == 0
    assert capsys.readouterr().err == ""
    path.write_bytes(save(weights))
    assert main([*words]) == 0
    assert "holds no hash: an earlier version wrote it" in capsys.readouterr().err
    name = next(name for name, tensor in weights.items() if tensor.is_floating_point())
    weights[name] = weights[name] + 1
    path.write_bytes(save(weights, metadata={"recall-arena": f"{address} {weights_hash(weights)}"}))
    assert main([*words]) == 0
    assert "is not, to the last bit, what the record tells of" in capsys.readouterr().err
    path.unlink()
    path.mkdir()
    assert main([*words]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "it is a folder); delete it to train again" in said
