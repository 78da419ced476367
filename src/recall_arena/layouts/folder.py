"""Models from and to the folders of other libraries: config.json and the weights beside it."""

import io
import json
import pickle
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from recall_arena import atomic
from recall_arena.checkpoints import check_fit
from recall_arena.layouts.layout import Layout
from recall_arena.layouts.mamba_ssm import MAMBA_SSM
from recall_arena.layouts.transformers import TRANSFORMERS
from recall_arena.model import SequenceModel
from recall_arena.names import unknown
from recall_arena.watching import alike

LAYOUTS = {"transformers": TRANSFORMERS, "mamba-ssm": MAMBA_SSM}
CONFIG = "config.json"


def load_pretrained(folder: Path | str) -> SequenceModel:
    """The model in a folder that transformers' Mamba or mamba-ssm saved; float32, on the CPU.

    Its logits are theirs, of the whole padded vocabulary.  Weights of another float type become
    float32.  A readout that is tied to the embedding is a copy of it here, which training changes
    by itself.

    Raises ValueError, in one line, for a model that has something which ours do not have, or
    weights that are damaged or not finite; OSError if there is no such file.
    """
    folder = Path(folder)
    try:
        config = json.loads((folder / CONFIG).read_text())
        layout = _layout_of(config)
        spec, tied = layout.read(config)
        weights = _ours(_weights(folder), layout)
        if tied:
            weights["lm_head.weight"] = weights["embedding.weight"]
        with torch.random.fork_rng(devices=[]):
            model = SequenceModel(spec)
        check_fit(weights, model.state_dict())
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, KeyError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{folder} holds no model that fits here ({reason})") from None
    model.load_state_dict(weights)
    return model


def save_pretrained(model: SequenceModel, folder: Path | str, layout: str) -> None:
    """Write a model as a folder that a library's `from_pretrained` reads, whose logits are ours.

        save_pretrained(model, "mine", "transformers")    # MambaForCausalLM.from_pretrained("mine")

    `layout` is one of LAYOUTS.  "transformers" takes stacks of Mamba with norm="rms"; "mamba-ssm"
    takes Mamba and attention with either norm.  The readout is saved as it is, not tied.  Files of
    these names are replaced.

    Raises ValueError, before anything is written, for a layout that does not exist, for what it
    cannot express, for a model with replaced parts, and for weights that are not finite.
    """
    if layout not in LAYOUTS:
        raise ValueError(unknown("layout", layout, LAYOUTS))
    chosen, folder = LAYOUTS[layout], Path(folder)
    config = chosen.write(model.spec)
    with torch.random.fork_rng(devices=[]):
        plain = SequenceModel(model.spec)
    if not alike(model, plain):
        raise ValueError("the model has parts that its spec does not tell of")
    weights = {name: w.detach().float().cpu().clone() for name, w in model.state_dict().items()}
    check_fit(weights, plain.state_dict())
    names = {name: _theirs(name, chosen) for name in weights}
    content = _content({names[name]: w for name, w in weights.items()}, chosen.file)
    atomic.write(folder / chosen.file, content, replace=True)
    atomic.write(folder / CONFIG, f"{json.dumps(config, indent=2)}\n".encode(), replace=True)


def _layout_of(config: Any) -> Layout:
    """By what only one of them has in its config."""
    if isinstance(config, dict) and "model_type" in config:
        return TRANSFORMERS
    if isinstance(config, dict) and "d_model" in config:
        return MAMBA_SSM
    raise ValueError(f"{CONFIG} has neither transformers' model_type nor mamba-ssm's d_model")


def _weights(folder: Path) -> dict[str, Tensor]:
    path = folder / TRANSFORMERS.file
    if path.exists():
        return safetensors.torch.load(path.read_bytes())
    if (folder / f"{TRANSFORMERS.file}.index.json").exists():
        raise ValueError("its weights are in several files: save it with a larger max_shard_size")
    with (folder / MAMBA_SSM.file).open("rb") as file:
        found = torch.load(file, map_location="cpu", weights_only=True)
    if not isinstance(found, dict) or not all(isinstance(w, Tensor) for w in found.values()):
        raise ValueError(f"{MAMBA_SSM.file} is not a state_dict")
    return found


def _content(weights: dict[str, Tensor], file: str) -> bytes:
    if file == TRANSFORMERS.file:
        return safetensors.torch.save(weights, metadata={"format": "pt"})
    buffer = io.BytesIO()
    torch.save(weights, buffer)
    return buffer.getvalue()


def _ours(weights: dict[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """By our names, and of float32."""
    renamed = {layout.embedding: "embedding.weight", MAMBA_SSM.embedding: "embedding.weight"}
    return {
        renamed.get(name, name.removeprefix("backbone.")): weight.float()
        for name, weight in weights.items()
    }


def _theirs(name: str, layout: Layout) -> str:
    match name:
        case "embedding.weight":
            return layout.embedding
        case "lm_head.weight":
            return name
        case _:
            return f"backbone.{name}"
