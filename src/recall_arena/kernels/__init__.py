"""The operations under the mixers: each with its definition in PyTorch and its fast form."""

from recall_arena.kernels.causal_attention import (
    causal_attention,
    causal_attention_definition,
    causal_self_attention,
    rotary_angles,
)
from recall_arena.kernels.causal_conv import causal_conv, causal_conv_definition
from recall_arena.kernels.selective_scan import (
    continued_scan,
    continued_scan_definition,
    last_selective_scan,
    selective_scan,
    selective_scan_definition,
)

__all__ = [
    "causal_attention",
    "causal_attention_definition",
    "causal_conv",
    "causal_conv_definition",
    "causal_self_attention",
    "continued_scan",
    "continued_scan_definition",
    "last_selective_scan",
    "rotary_angles",
    "selective_scan",
    "selective_scan_definition",
]
