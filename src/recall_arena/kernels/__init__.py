"""The operations under the mixers: each with its definition in PyTorch and its fast form."""

from recall_arena.kernels.attention_mixer import attention_mixer, attention_mixer_definition
from recall_arena.kernels.causal_attention import (
    causal_attention,
    causal_attention_definition,
    kept_rotary_table,
    rotary_table,
)
from recall_arena.kernels.causal_conv import causal_conv, causal_conv_definition
from recall_arena.kernels.layers import AttentionLayer, Layer, MambaLayer
from recall_arena.kernels.mamba_mixer import (
    MambaWeights,
    last_mamba_mixer,
    mamba_mixer,
    mamba_mixer_definition,
)
from recall_arena.kernels.residual import Norm
from recall_arena.kernels.selective_scan import (
    continued_scan,
    continued_scan_definition,
    last_selective_scan,
    selective_scan,
    selective_scan_definition,
)
from recall_arena.kernels.stack import Stack, StackLoss, stack_logits

__all__ = [
    "AttentionLayer",
    "Layer",
    "MambaLayer",
    "MambaWeights",
    "Norm",
    "Stack",
    "StackLoss",
    "attention_mixer",
    "attention_mixer_definition",
    "causal_attention",
    "causal_attention_definition",
    "causal_conv",
    "causal_conv_definition",
    "continued_scan",
    "continued_scan_definition",
    "kept_rotary_table",
    "last_mamba_mixer",
    "last_selective_scan",
    "mamba_mixer",
    "mamba_mixer_definition",
    "rotary_table",
    "selective_scan",
    "selective_scan_definition",
    "stack_logits",
]
