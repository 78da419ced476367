"""Causal softmax attention (Vaswani et al. 2017, arXiv:1706.03762, section 3.2.1), with RoPE.

    out_i = sum_{j <= i} softmax_j(q_i . k_j / sqrt(head_width)) v_j

With a table of `rotary.py`, queries and keys are rotated first.

`causal_attention_definition` says what this means.  `causal_attention` runs compiled for small
heads and short sequences, where PyTorch's `scaled_dot_product_attention` spends its time on
other things than arithmetic, and leaves the rest to that function.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from recall_arena.kernels import native, structs
from recall_arena.kernels.function import Operation, Tensors, compiled
from recall_arena.kernels.rotary import RotaryTable, rotate
from recall_arena.shapes import Heads, Queries

LONGEST = 512
"""Positions up to which the compiled kernel is the faster one, at head widths from 8 to 256: 1.2
to 2.9 times, measured on AVX-512; at 1,024 its tables leave the cache and it is the slower one."""


def causal_attention_definition(
    q: Queries, k: Heads, v: Heads, rotary: RotaryTable | None = None
) -> Queries:
    """The equation, transcribed.  Any float type, any device."""
    return attention_weights(*_rotated(q, k, rotary)) @ v


def attention_weights(q: Queries, k: Heads) -> Float[Tensor, "batch heads queries length"]:
    """How much of each value a query takes."""
    scores = (q * q.shape[3] ** -0.5) @ k.transpose(2, 3)
    return F.softmax(scores.masked_fill(_future(q, k), float("-inf")), dim=-1)


def causal_attention(q: Queries, k: Heads, v: Heads, rotary: RotaryTable | None = None) -> Queries:
    """Each query's mixture of the values up to its position.

    q (batch, heads, queries, head_width): those of the last positions, or of all; k, v (batch,
    heads, length, head_width).  With the `rotary` table of the length's positions, q and k are
    rotated first.  Runs compiled for float32 on the CPU where that is faster; otherwise by
    PyTorch.  Bit-identical from call to call, for any number of threads.  Raises ValueError if
    the shapes do not fit together.
    """
    _check_shapes(q, k, v, rotary)
    if is_small(*k.shape[2:]) and k.is_cpu:
        fixed = rotary is None or not rotary.requires_grad
        if fixed and native.fits(q, k, v, *native.given(rotary)):
            return compiled(_ATTENTION, q, k, v, rotary)
        return causal_attention_definition(q, k, v, rotary)
    q, k = _rotated(q, k, rotary)
    if q.shape[2] == k.shape[2]:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=~_future(q, k))


def is_small(length: int, head_width: int) -> bool:
    """Whether the compiled kernel is the faster one."""
    return length <= LONGEST and head_width <= native.LARGEST_HEAD


def _check_shapes(q: Tensor, k: Tensor, v: Tensor, rotary: Tensor | None) -> None:
    """The compiled kernel reads where the shapes say, so they are compared before it may."""
    batch, heads, queries, width = q.shape
    length = k.shape[2]
    fit = k.shape == v.shape == (batch, heads, length, width) and queries <= length
    if rotary is not None:
        fit = fit and width % 2 == 0 and rotary.shape == (2, length, width // 2)
    if not fit:
        given = (q, k, v) if rotary is None else (q, k, v, rotary)
        raise ValueError(
            "q must be (batch, heads, queries, head_width), k and v (batch, heads, length, "
            "head_width) with length >= queries, rotary (2, length, head_width / 2); got "
            + ", ".join(str(tuple(x.shape)) for x in given)
        )


def _rotated(q: Queries, k: Heads, rotary: RotaryTable | None) -> tuple[Queries, Heads]:
    if rotary is None:
        return q, k
    return rotate(q, rotary[:, k.shape[2] - q.shape[2] :]), rotate(k, rotary)


def _future(q: Queries, k: Heads) -> Tensor:
    """(queries, length): the keys that come after a query."""
    queries, length = q.shape[2], k.shape[2]
    ones = torch.ones(queries, length, dtype=torch.bool, device=q.device)
    return ones.triu(1 + length - queries)


Inputs = tuple[Tensor, Tensor, Tensor, Tensor | None]


class _Attention(Operation):
    def definition(self, *tensors: Any) -> Tensor:
        return causal_attention_definition(*tensors)

    def forward(self, tensors: Inputs, *, train: bool) -> tuple[Tensor, Tensors]:
        q, k, v, rotary = _in_rows(tensors)
        out, softmax = _like(q), q.new_empty(*q.shape[:2], 2, q.shape[2])
        arguments = _arguments(q, k, v, rotary, softmax)
        arguments.out = structs.heads(out)
        native.call("recall_attention_forward", arguments, _threads(k))
        return out, (softmax,)

    def backward(self, tensors: Inputs, saved: tuple[Tensor], grad_out: Tensor) -> Tensors:
        q, k, v, rotary = _in_rows(tensors)
        grad_out, gradients = _unit_stride(grad_out), (_like(q), _like(k), _like(v))
        arguments = _arguments(q, k, v, rotary, saved[0])
        arguments.grad_out = structs.heads(grad_out)
        for name, gradient in zip(("grad_q", "grad_k", "grad_v"), gradients, strict=True):
            setattr(arguments, name, structs.heads(gradient))
        native.call("recall_attention_backward", arguments, _threads(k))
        return *gradients, None


_ATTENTION = _Attention()


def _in_rows(tensors: Inputs) -> Inputs:
    """The tensors as the kernel reads them."""
    q, k, v, rotary = tensors
    table = None if rotary is None else rotary.contiguous()
    return _unit_stride(q), _unit_stride(k), _unit_stride(v), table


def _unit_stride(x: Tensor) -> Tensor:
    """`x` itself if the numbers of a head follow one another, else a contiguous copy."""
    return x if x.stride(3) == 1 else x.contiguous()


def _like(x: Tensor) -> Tensor:
    """Room for a tensor of x's shape whose heads lie beside one another, as a mixer wants."""
    batch, heads, length, width = x.shape
    return x.new_empty(batch, length, heads, width).transpose(1, 2)


def _threads(k: Tensor) -> int:
    return native.threads(k.numel() * k.shape[2] // 64)


def _arguments(
    q: Tensor, k: Tensor, v: Tensor, rotary: Tensor | None, softmax: Tensor
) -> structs.Attention:
    batch, heads, queries, width = q.shape
    return structs.Attention(
        batch=batch,
        heads=heads,
        length=k.shape[2],
        queries=queries,
        width=width,
        q=structs.heads(q),
        k=structs.heads(k),
        v=structs.heads(v),
        **structs.rotary(rotary),
        softmax=softmax.data_ptr(),
    )
