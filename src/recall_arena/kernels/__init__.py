"""The operations under the mixers: each with its definition in PyTorch and its fast form."""

from recall_arena.kernels.attention_mixer import AttentionLayer, attention_mixer_definition
from recall_arena.kernels.causal_attention import (
    causal_attention,
    causal_attention_definition,
)
from recall_arena.kernels.causal_conv import causal_conv, causal_conv_definition
from recall_arena.kernels.gated_delta import gated_delta, gated_delta_definition
from recall_arena.kernels.gated_delta_mixer import (
    GatedDeltaLayer,
    GatedDeltaSizes,
    OutputGate,
    gated_delta_mixer_definition,
)
from recall_arena.kernels.layer import Layer, Shape, mix
from recall_arena.kernels.mamba_mixer import MambaLayer, mamba_mixer_definition
from recall_arena.kernels.mlp import MLPLayer, mlp_definition
from recall_arena.kernels.norm import Norm
from recall_arena.kernels.rotary import rotary_table, rotary_table_of
from recall_arena.kernels.scan_definition import (
    continued_scan_definition,
    selective_scan_definition,
)
from recall_arena.kernels.selective_scan import (
    continued_scan,
    last_selective_scan,
    selective_scan,
)
from recall_arena.kernels.stack import PreNorm, Stack
from recall_arena.kernels.stack_calls import StackLogits, StackLoss

__all__ = [
    "AttentionLayer",
    "GatedDeltaLayer",
    "GatedDeltaSizes",
    "Layer",
    "MLPLayer",
    "MambaLayer",
    "Norm",
    "OutputGate",
    "PreNorm",
    "Shape",
    "Stack",
    "StackLogits",
    "StackLoss",
    "attention_mixer_definition",
    "causal_attention",
    "causal_attention_definition",
    "causal_conv",
    "causal_conv_definition",
    "continued_scan",
    "continued_scan_definition",
    "gated_delta",
    "gated_delta_definition",
    "gated_delta_mixer_definition",
    "last_selective_scan",
    "mamba_mixer_definition",
    "mix",
    "mlp_definition",
    "rotary_table",
    "rotary_table_of",
    "selective_scan",
    "selective_scan_definition",
]
