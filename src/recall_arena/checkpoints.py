"""Trained weights beside a store's records, as safetensors files."""

from pathlib import Path

from safetensors.torch import load_model, save_file

from recall_arena.model import SequenceModel
from recall_arena.runs import Run, build


def weights_path(store: Path, address: str) -> Path:
    """Where the weights of a run are kept."""
    return store / "weights" / f"{address}.safetensors"


def save_weights(model: SequenceModel, path: Path) -> None:
    """Write a model's weights, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    # Copies, for in a trained model the tensors are parts of one vector.
    save_file({name: tensor.clone() for name, tensor in model.state_dict().items()}, partial)
    partial.replace(path)


def load_weights(run: Run, path: Path) -> SequenceModel:
    """The trained model of a run; FileNotFoundError if its weights were not kept."""
    model = build(run)
    load_model(model, str(path))
    return model
