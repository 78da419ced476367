"""What an unfinished run has come to, as a file: it then survives its process.

A safetensors file, which executes nothing when it is read: tensors by name, and a note with the
numbers, the run's address, what made it and a hash of all of it.  Only the same build on the same
kind of machine may go on from it: other kernels round differently, and a record is of one platform.
"""

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor

from recall_arena import atomic
from recall_arena.checkpoints import NOTE, read_tensors, weights_hash
from recall_arena.execution import Execution, State
from recall_arena.kernels import native
from recall_arena.provenance import kernels_on, provenance
from recall_arena.runs import Run


class Unusable(Exception):
    """Why a snapshot cannot be gone on from, in one line."""


def save_snapshot(execution: Execution, path: Path) -> None:
    """Write what an execution has come to, whole or not at all.

    Raises RuntimeError within a step, OSError where nothing can be written.
    """
    state = execution.state().copied()  # safetensors refuses views of one vector
    note = {
        "address": execution.run.address,
        "made": _maker(execution.run, execution.device),
        "numbers": state.numbers,
    }
    text = json.dumps(note)
    seal = _seal(text, weights_hash(state.tensors))
    atomic.write(path, save(state.tensors, metadata={NOTE: f"{seal} {text}"}), replace=True)


def restore_snapshot(execution: Execution, path: Path, run: Run) -> None:
    """Have an execution go on from a file that holds what `run` came to: its own or its origin.

    Raises FileNotFoundError if there is no such file, Unusable if it is damaged, of another run, or
    of another build or machine; the execution then is as it was.
    """
    try:
        note, tensors = _read(path)
        _check(note, path, run, execution.device)
        numbers = note["numbers"]
    except (SafetensorError, RuntimeError, LookupError, TypeError, ValueError) as error:
        raise _damaged(path, error) from None
    if run.address != execution.run.address:  # the tests of an origin are made again
        numbers = numbers | {"tested": []}
    before = execution.state().copied()
    try:
        execution.restore(State(tensors, numbers))
    except (RuntimeError, LookupError, TypeError, ValueError) as error:
        execution.restore(before)
        raise _damaged(path, error) from None


def _check(note: dict[str, Any], path: Path, run: Run, device: torch.device) -> None:
    """Raises Unusable for a note on another run, or of another build or machine."""
    if note["address"] != run.address:
        raise Unusable(f"{path} is of run {note['address']}")
    theirs, ours = note["made"], _maker(run, device)
    for name in ours:
        if theirs.get(name) != ours[name]:
            raise Unusable(f"{path} was made with {name} {theirs.get(name)}, not {ours[name]}")


def _damaged(path: Path, error: Exception) -> Unusable:
    reason = str(error).partition("\n")[0]
    return Unusable(f"{path} is damaged ({type(error).__name__}: {reason})")


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A snapshot's note and its tensors; ValueError if its seal is broken."""
    noted, tensors = read_tensors(path)
    seal, _, text = (noted or "").partition(" ")
    if seal != _seal(text, weights_hash(tensors)):
        raise ValueError("its seal is broken")
    return json.loads(text), tensors


def _seal(text: str, tensors: str) -> str:
    return hashlib.sha256(f"{tensors} {text}".encode()).hexdigest()


def _maker(run: Run, device: torch.device) -> dict[str, Any]:
    """What decides how sums are rounded, and what else is computed."""
    return {
        **_versions(run.kinds, device),
        "kernels": kernels_on(device),
        "threads": torch.get_num_threads(),
        "kernels' build": native.build(),
    }


@cache
def _versions(kinds: tuple[type, ...], device: torch.device) -> dict[str, Any]:
    """Of everything that is installed once and for all; looking it up takes long."""
    made = provenance(kinds, device)
    fixed = {"machine": made.machine, "package's build": made.package_build}
    return {name: made.versions[name] for name in sorted(made.versions)} | fixed
