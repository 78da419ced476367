"""Kept weights, read without torch and held against the record that they belong to."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from recall_arena.records.files import DamagedRecord, content_of
from recall_arena.records.places import weights_path
from recall_arena.records.record import Record

Arrays = dict[str, NDArray[Any]]


def hash_of(weights: Mapping[str, NDArray[Any]]) -> str:
    """The SHA-256 of weights' names, types, shapes and bits, as records have it."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        array = weights[name]
        digest.update(f"{name} torch.{array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def weights_of(record: Record, store: Path) -> Arrays | None:
    """The weights of a record's run, by their names in the model; None if none were kept.

    Raises DamagedRecord if they are not, to the last bit, those that the record tells of, or not
    finite.
    """
    path = weights_path(store, record.address)
    try:
        weights = load(content_of(path))
    except FileNotFoundError:
        return None
    except (SafetensorError, TypeError, ValueError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise DamagedRecord(path, f"holds no weights that can be read ({reason})") from None
    if record.weights is None:
        raise DamagedRecord(path, "cannot be held against its record, which has no hash of weights")
    if hash_of(weights) != record.weights:
        raise DamagedRecord(path, "does not hold the weights that its record tells of")
    if not all(np.isfinite(array).all() for array in weights.values()):
        raise DamagedRecord(path, "holds weights that are not finite")
    return weights
