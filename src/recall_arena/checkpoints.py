"""Trained weights beside a store's records, as safetensors files."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_model, save
from torch import nn

from recall_arena import atomic


def save_weights(model: nn.Module, path: Path) -> None:
    """Write a model's weights, whole or not at all; those that the file held are replaced."""
    # Copies, since safetensors refuses tensors that are views of one vector, as trained ones are.
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    atomic.write(path, save(weights), replace=True)


def load_weights(model: nn.Module, path: Path) -> None:
    """Give a model the weights of a file; ValueError if they are not those of such a model."""
    try:
        load_model(model, path)
    except (SafetensorError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path} does not hold this model's weights ({reason})") from None
