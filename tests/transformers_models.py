"""Small models of transformers with Mamba layers or gated delta rules, always the same."""

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


ATTENTION = {
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "layer_types": ["linear_attention", "full_attention"],
}
DELTA = {
    **ATTENTION,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 4,
    "linear_value_head_dim": 8,
}
EXPERTS = {
    "num_experts": 2,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 8,
    "shared_expert_intermediate_size": 8,
}
LATENT = {
    "kv_lora_rank": 8,
    "q_lora_rank": None,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 8,
}
DELTA_SIZES: dict[str, tuple[str, str, dict[str, Any]]] = {  # config, model, sizes
    "qwen3_next": ("Qwen3NextConfig", "Qwen3Next", {**DELTA, **EXPERTS}),
    "qwen3_5": ("Qwen3_5TextConfig", "Qwen3_5", DELTA),
    "qwen3_5_moe": ("Qwen3_5MoeTextConfig", "Qwen3_5Moe", {**DELTA, **EXPERTS}),
    "olmo_hybrid": (
        "OlmoHybridConfig",
        "OlmoHybrid",
        {**DELTA, "linear_num_value_heads": 2, "linear_allow_neg_eigval": True},
    ),
    "kimi_linear": (
        "KimiLinearConfig",
        "KimiLinear",
        {**ATTENTION, **EXPERTS, **LATENT, "linear_num_heads": 2, "linear_head_dim": 4},
    ),
}


def modelling(name: str) -> ModuleType:
    return import_module(f"transformers.models.{name}.modeling_{name}")


def replaced_in(name: str) -> dict[str, Any]:
    return {n: f for n, f in vars(modelling(name)).items() if n in REPLACED}


def language_model(name: str, **options: Any) -> nn.Module:
    """A few small layers whose weights are large enough that every one of them matters."""
    return _made(f"{CONFIGS[name]}Config", CONFIGS[name], {**SIZES[name], **options})


def delta_model(name: str) -> nn.Module:
    """The same of a model with a gated delta rule: one layer of that, and one of attention."""
    return _made(*DELTA_SIZES[name])


def _made(config: str, name: str, options: dict[str, Any]) -> nn.Module:
    sizes = {"vocab_size": 17, "hidden_size": 16, **options}
    special = {"bos_token_id": 0, "pad_token_id": 0, "eos_token_id": None}
    make = getattr(transformers, config)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = make(**sizes, **special, tie_word_embeddings=False)
        model = getattr(transformers, f"{name}ForCausalLM")(made).eval()
    rng = generator("weights")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=rng)
    return model


def tokens(batch: int, length: int) -> Tensor:
    return torch.randint(1, 17, (batch, length), generator=generator("tokens"))
