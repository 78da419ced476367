"""Small models of transformers with Mamba layers, random but the same every time."""

from importlib import import_module
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from recall_arena.seeds import generator

transformers = pytest.importorskip("transformers")

MAMBA = {"state_size": 8, "num_hidden_layers": 2}
HYBRID = {"mamba_d_state": 8, "num_attention_heads": 2, "num_key_value_heads": 2}
SIZES: dict[str, dict[str, Any]] = {
    "mamba": MAMBA,
    "falcon_mamba": MAMBA,
    "jamba": {
        **HYBRID,
        "intermediate_size": 16,
        "num_hidden_layers": 4,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "num_experts": 2,
        "num_experts_per_tok": 1,
    },
    "zamba": {
        **HYBRID,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "layers_block_type": ["linear_attention", "hybrid"],
        "n_mamba_heads": 2,
    },
}
CONFIGS = {"mamba": "Mamba", "falcon_mamba": "FalconMamba", "jamba": "Jamba", "zamba": "Zamba"}
REPLACED = [
    "causal_conv1d_fn",
    "causal_conv1d_update",
    "mamba_inner_fn",
    "mamba_selective_scan",
    "mamba_selective_state_update",
]


def modelling(name: str) -> ModuleType:
    return import_module(f"transformers.models.{name}.modeling_{name}")


def replaced_in(name: str) -> dict[str, Any]:
    return {n: f for n, f in vars(modelling(name)).items() if n in REPLACED}


def language_model(name: str, **options: Any) -> nn.Module:
    """A few small layers whose weights are large enough that every one of them matters."""
    sizes = {"vocab_size": 17, "hidden_size": 16, **SIZES[name], **options}
    special = {"bos_token_id": 0, "pad_token_id": 0, "eos_token_id": None}
    config = getattr(transformers, f"{CONFIGS[name]}Config")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = config(**sizes, **special, tie_word_embeddings=False)
        model = getattr(transformers, f"{CONFIGS[name]}ForCausalLM")(config).eval()
    rng = generator("weights")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=rng)
    return model


def tokens(batch: int, length: int) -> Tensor:
    return torch.randint(1, 17, (batch, length), generator=generator("tokens"))
