"""Trained weights beside a store's records, as safetensors files that name their run.

A file's note says whose weights it holds and what their hash is, so that a damaged one, and one
that was renamed or copied, is found when it is read.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from recall_arena import atomic
from recall_arena.records import DamagedRecord
from recall_arena.records.files import content_of
from recall_arena.records.weights import hash_of

NOTE = "recall-arena"


def weights_hash(weights: Mapping[str, Tensor]) -> str:
    """The SHA-256 of a state's names, types, shapes and bits."""
    return hash_of({name: tensor.detach().cpu().numpy() for name, tensor in weights.items()})


def save_weights(model: nn.Module, path: Path) -> None:
    """Write a model's weights, whole or not at all; those that the file held are replaced.

    The file's name without its suffix is the address of the run.
    """
    # Copies, since safetensors refuses tensors that are views of one vector, as trained ones are.
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    note = {NOTE: f"{path.stem} {weights_hash(weights)}"}  # one, since the order of two varies
    atomic.write(path, save(weights, metadata=note), replace=True)


def load_weights(model: nn.Module, path: Path) -> bool:
    """Give a model the weights of a file; whether the file had a hash to hold them against.

    Files of versions that wrote none have none.  Raises ValueError, in one line, if the weights
    are damaged, of another run or another model, or not finite; FileNotFoundError if there are
    none.
    """
    try:
        note, weights = read_tensors(path)
        if note is not None and note != f"{path.stem} {weights_hash(weights)}":
            its = note.split(" ")[0] == path.stem
            raise ValueError("its hash is another" if its else f"it holds those of {note[:16]}")
        check_fit(weights, model.state_dict())
    except (SafetensorError, RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path} does not hold this model's weights ({reason})") from None
    model.load_state_dict(weights)
    return note is not None


def read_tensors(path: Path) -> tuple[str | None, dict[str, Tensor]]:
    """The note and the tensors of a safetensors file.

    Raises ValueError or SafetensorError for what is none of ours, FileNotFoundError for no file.
    """
    try:
        content_of(path)  # a pipe, a device or a folder is no file to be opened
    except DamagedRecord as damage:
        raise ValueError(f"it {damage.reason}") from None
    with safe_open(path, framework="pt") as file:
        notes = file.metadata() or {}
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if notes.keys() - {NOTE, "format"}:
        raise ValueError(f"its notes are not ours: {', '.join(sorted(notes))}")
    return notes.get(NOTE), weights


def check_fit(weights: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    """Raises ValueError if weights are not those that are wanted, or not finite."""
    for name in sorted(wanted.keys() ^ weights.keys()):
        raise ValueError(f"{name} is {'missing' if name in wanted else 'not in this model'}")
    for name, tensor in weights.items():
        if (tensor.shape, tensor.dtype) != (wanted[name].shape, wanted[name].dtype):
            raise ValueError(
                f"{name} is {tensor.dtype} {tuple(tensor.shape)}, "
                f"and should be {wanted[name].dtype} {tuple(wanted[name].shape)}"
            )
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{name} is not finite, as where a training diverged")
