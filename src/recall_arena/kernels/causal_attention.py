"""Causal softmax attention (Vaswani et al. 2017, arXiv:1706.03762, section 3.2.1).

    out_i = sum_{j <= i} softmax_j(q_i . k_j / sqrt(head_width)) v_j

Written out rather than left to `scaled_dot_product_attention`, which at the head widths of
this package is slower on a CPU than the three operations that it fuses.
"""

import torch
from torch.nn import functional as F

from recall_arena.shapes import Heads, LastHeads


def causal_attention(q: Heads, k: Heads, v: Heads) -> Heads:
    """Each position's mixture of the values up to it; all (batch, heads, length, head_width)."""
    length = q.shape[2]
    future = torch.ones(length, length, dtype=torch.bool, device=q.device).triu(1)
    scores = (q * q.shape[3] ** -0.5) @ k.transpose(2, 3)
    return F.softmax(scores.masked_fill(future, float("-inf")), dim=-1) @ v


def last_attention(q: LastHeads, k: Heads, v: Heads) -> LastHeads:
    """The last position's row of `causal_attention`, which sees every key: no mask is needed."""
    scores = (q * q.shape[3] ** -0.5) @ k.transpose(2, 3)
    return F.softmax(scores, dim=-1) @ v
