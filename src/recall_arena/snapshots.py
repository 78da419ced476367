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

from recall_arena import atomic
from recall_arena.checkpoints import NOTE, read_tensors, weights_hash
from recall_arena.execution import Execution, State
from recall_arena.kernels import native
from recall_arena.provenance import provenance
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
        "made": _maker(execution.run),
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
    fresh = execution.state().copied()
    try:
        text, state = _read(path)
        note = json.loads(text)
        if note["address"] != run.address:
            raise Unusable(f"{path} is of run {note['address']}")
        theirs, ours = note["made"], _maker(run)
        for name in ours:
            if theirs.get(name) != ours[name]:
                raise Unusable(f"{path} was made with {name} {theirs.get(name)}, not {ours[name]}")
        if run.address != execution.run.address:  # the tests of an origin are made again
            state = State(state.tensors, state.numbers | {"tested": []})
        execution.restore(state)
    except (SafetensorError, RuntimeError, LookupError, TypeError, ValueError) as error:
        execution.restore(fresh)
        reason = str(error).partition("\n")[0]
        raise Unusable(f"{path} is damaged ({type(error).__name__}: {reason})") from None


def _read(path: Path) -> tuple[str, State]:
    """A snapshot's note and what it holds; ValueError if its seal is broken."""
    noted, tensors = read_tensors(path)
    seal, _, text = (noted or "").partition(" ")
    if seal != _seal(text, weights_hash(tensors)):
        raise ValueError("its seal is broken")
    return text, State(tensors, json.loads(text)["numbers"])


def _seal(text: str, tensors: str) -> str:
    return hashlib.sha256(f"{tensors} {text}".encode()).hexdigest()


def _maker(run: Run) -> dict[str, Any]:
    """What decides how sums are rounded, and what else is computed."""
    return {
        **_versions(run.kinds),
        "kernels": native.describe(),
        "threads": torch.get_num_threads(),
        "kernels' build": native.build(),
    }


@cache
def _versions(kinds: tuple[type, ...]) -> dict[str, Any]:
    """Of everything that is installed once and for all; looking it up takes long."""
    made = provenance(kinds)
    fixed = {"machine": made.machine, "package's build": made.package_build}
    return {name: made.versions[name] for name in sorted(made.versions)} | fixed
