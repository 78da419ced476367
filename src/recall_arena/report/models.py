"""Trained models for a page to run: what `static/models.js` needs of each, as JSON.

Shapes say most of what a model is; names are those of its state in PyTorch.  Nothing here
imports torch.
"""

import base64
import re
from dataclasses import dataclass
from typing import Any

import polars as pl

from recall_arena.records import DamagedRecord, Record, Store, weights_path
from recall_arena.records.weights import Arrays, weights_of
from recall_arena.studies import Study

_LAYER = re.compile(r"([^()]+)(?:\((.*)\))?")
_KNOWN = re.compile(
    r"(embedding|positions|lm_head)\.weight|norm_f\.(weight|bias)|layers\.\d+\."
    r"(norm\.(weight|bias)|mixer\.((in_proj|out_proj|conv1d|dt_proj)\.(weight|bias)"
    r"|x_proj\.weight|A_log|D))"
)
"""The parts that `models.js` computes with; one more, and it would compute something else."""


@dataclass(frozen=True)
class Played:
    """The models that a page runs, and which of the kept ones it does not, with the reason."""

    models: list[dict[str, Any]]
    refused: list[DamagedRecord]


def played(study: Study, frame: pl.DataFrame, store: Store | None) -> Played:
    """Of each model that a study names the first run whose weights a store keeps.

    `frame` has the store's runs.  Weights that are not those that the record tells of are refused.
    """
    models: list[dict[str, Any]] = []
    refused: list[DamagedRecord] = []
    if store is None or study.playable is None:
        return Played(models, refused)
    for each in study.playable(frame):
        for address in each.addresses:
            try:
                found = _found(store, address)
            except DamagedRecord as reason:
                refused.append(reason)
                continue
            if found is not None:
                models.append({"name": each.name, "colour": each.colour, **found})
                break
    return Played(models, refused)


def _found(store: Store, address: str) -> dict[str, Any] | None:
    """A run's model as JSON, None if its weights were not kept; DamagedRecord if it is refused."""
    if not weights_path(store.folder, address).exists():
        return None
    record = store.read(address)
    weights = weights_of(record, store.folder)
    if weights is None:
        return None
    try:
        return {**_facts(record), **exported(record.run["model"], weights)}
    except ValueError as reason:
        path = weights_path(store.folder, address)
        raise DamagedRecord(path, f"holds a model that a page cannot run ({reason})") from None


def _facts(record: Record) -> dict[str, Any]:
    """What the page says of a run, and how it draws sequences like those that it learnt from."""
    task, context = record.run["task"], record.run["schedule"]["context"]
    if task["kind"] != "associative-recall":
        raise ValueError(f"its task is {task['kind']}")
    lengths = [n for n in (context // 4, context, 2 * context, 3 * context) if n > task["delay"]]
    tested = record.outcome.contexts
    return {
        "address": record.address,
        "task": {name: task[name] for name in ("vocabulary", "queries", "delay")},
        "context": context,
        "lengths": lengths,
        "seed": record.run["seed"],
        "steps": record.outcome.steps,
        "parameters": record.cost.parameters,
        "tested": [
            [length, round(accuracy, 4)]
            for length, accuracy in zip(tested.at, tested.accuracy(), strict=True)
            if length in lengths
        ],
    }


def exported(model: dict[str, Any], weights: Arrays) -> dict[str, Any]:
    """What `models.js` needs to run a model: its layers, its norm, its weights.

    `model` is a `ModelSpec` as JSON.  Raises ValueError, with the reason, for one that
    `models.js` does not know.
    """
    if model["positions"] not in ("none", "learned"):
        raise ValueError(f"its positions are {model['positions']}")
    layers = [_layer(text) for text in model["layers"]]
    for name, array in weights.items():
        if not _KNOWN.fullmatch(name):
            raise ValueError(f"it has a {name}")
        if array.dtype != "float32":
            raise ValueError(f"its {name} is {array.dtype}")
    ordered = sorted(weights.items())  # a safetensors file is not read in the same order each time
    numbers = b"".join(array.astype("<f4").tobytes() for _, array in ordered)
    return {
        "layers": layers,
        "norm": model.get("norm", "layer"),
        "tensors": [[name, list(array.shape)] for name, array in ordered],
        "weights": base64.b64encode(numbers).decode(),
    }


def _layer(text: str) -> dict[str, Any]:
    """A mixer, from its text in a record: "attention-rope(heads=2)"."""
    found = _LAYER.fullmatch(text)
    name, given = found.groups() if found else (text, None)
    options = dict(each.split("=", 1) for each in given.split(", ")) if given else {}
    if name == "mamba":
        return {"kind": "mamba"}
    if name not in ("attention", "attention-rope"):
        raise ValueError(f"it has the mixer {name}")
    positions = options.get("positions", "rope" if name == "attention-rope" else "none")
    if positions not in ("none", "rope"):
        raise ValueError(f"the positions of its attention are {positions}")
    base = float(options.get("base", 10_000)) if positions == "rope" else None
    return {"kind": "attention", "heads": int(options.get("heads", 1)), "base": base}
