"""This package's kernels under the names, layouts and options of mamba-ssm and causal-conv1d.

Both libraries need a GPU.  What was written for them runs on a CPU with

    from recall_arena.compat import causal_conv1d_fn, selective_scan_fn

and `use_in_transformers()` makes transformers' Mamba (Gu & Dao 2023, arXiv:2312.00752) do so:

    with use_in_transformers():
        model.generate(**prompt)

Wherever `selective_scan` or `causal_conv` can say a call, they run it, compiled.  The rest -- a
scan without softplus, with complex states or with a B or C that no token chooses; a convolution
without SiLU or of packed sequences; the updates by single tokens -- is written out in PyTorch.

Sequences lie as (batch, dim, length) here: each function turns its views around, and only what
is not contiguous along `dim` is copied.  Numbers are computed in float32, or in float64 if the
first argument has it, and returned in the first argument's type.
"""

from recall_arena.compat.conv import causal_conv1d_fn, causal_conv1d_update
from recall_arena.compat.in_transformers import use_in_transformers
from recall_arena.compat.scan import selective_scan_fn
from recall_arena.compat.state_update import selective_state_update

__all__ = [
    "causal_conv1d_fn",
    "causal_conv1d_update",
    "selective_scan_fn",
    "selective_state_update",
    "use_in_transformers",
]
