"""The operations under the mixers: each with its definition in PyTorch and its fast form."""

from recall_arena.kernels.causal_attention import causal_attention, last_attention
from recall_arena.kernels.causal_conv import causal_conv, causal_conv_definition
from recall_arena.kernels.selective_scan import selective_scan, selective_scan_definition

__all__ = [
    "causal_attention",
    "causal_conv",
    "causal_conv_definition",
    "last_attention",
    "selective_scan",
    "selective_scan_definition",
]
