"""This package's kernels under the names of mamba-ssm, causal-conv1d and flash-linear-attention.

These libraries need a GPU.  What was written for them runs on a CPU with

    from recall_arena.compat import causal_conv1d_fn, selective_scan_fn

and `use_in_transformers()` makes transformers' Mamba (Gu & Dao 2023, arXiv:2312.00752),
FalconMamba, Jamba and Zamba do so, and its models with gated delta rules (arXiv:2412.06464),
Qwen3-Next, Qwen3.5, OLMo Hybrid and Kimi Linear:

    with use_in_transformers():
        model.generate(**prompt)

Wherever `selective_scan` or `causal_conv` can say a call, they run it, compiled.  The rest -- a
scan without softplus, with complex states or with a B or C that no token chooses; a convolution
without SiLU or of packed sequences; the updates by single tokens -- is written out in PyTorch.
Mamba-2's scan over whole sequences is not here.

The delta rules (`chunk_gated_delta_rule`, `chunk_kda`, `chunk_delta_rule`) have fla's layout,
(batch, length, heads, width).  Elsewhere sequences lie as (batch, dim, length), as views of the
kernels' (batch, length, channels), and only what is not contiguous along `dim` is copied.  Numbers
are computed in float32, or in float64 if the first argument has it (a delta rule's v), and returned
in that argument's type.  Each function refuses what it cannot do right, with an error that names
what was given and what is allowed.
"""

from recall_arena.compat.conv import causal_conv1d_fn
from recall_arena.compat.conv_update import causal_conv1d_update, causal_conv1d_varlen_states
from recall_arena.compat.gated_delta import (
    chunk_delta_rule,
    chunk_gated_delta_rule,
    chunk_kda,
    fused_recurrent_delta_rule,
    fused_recurrent_gated_delta_rule,
    fused_recurrent_kda,
)
from recall_arena.compat.in_transformers import use_in_transformers
from recall_arena.compat.inner import mamba_inner_fn
from recall_arena.compat.scan import selective_scan_fn
from recall_arena.compat.state_update import selective_state_update

__all__ = [
    "causal_conv1d_fn",
    "causal_conv1d_update",
    "causal_conv1d_varlen_states",
    "chunk_delta_rule",
    "chunk_gated_delta_rule",
    "chunk_kda",
    "fused_recurrent_delta_rule",
    "fused_recurrent_gated_delta_rule",
    "fused_recurrent_kda",
    "mamba_inner_fn",
    "selective_scan_fn",
    "selective_state_update",
    "use_in_transformers",
]
