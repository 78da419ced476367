"""Self-attention between its projections (Vaswani et al. 2017, arXiv:1706.03762, section 3.2).

    q, k, v = in_proj x
    out     = out_proj attention(q, k, v)

`attention_mixer_definition` says what this means; `attention_mixer` works through it a few
sequences at a time, so that what one line leaves is still in the cache when the next one reads it.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from recall_arena.kernels import native
from recall_arena.kernels.causal_attention import (
    Angles,
    causal_attention,
    is_small,
    tables,
)
from recall_arena.shapes import Heads, Hidden, Queries

IntoAll = Float[Tensor, "three_widths width"]
IntoWidth = Float[Tensor, "width width"]
Asking = Float[Tensor, "batch queries width"]


def attention_mixer_definition(
    x: Hidden,
    in_proj: IntoAll,
    out_proj: IntoWidth,
    heads: int,
    angles: Angles | None = None,
    queries: int | None = None,
) -> Asking:
    """The equations.  Any float type, any device."""
    width = x.shape[2]
    asking = x if queries is None else x[:, x.shape[1] - queries :]
    (q,) = _split_heads(F.linear(asking, in_proj[:width]), 1, heads)
    k, v = _split_heads(F.linear(x, in_proj[width:]), 2, heads)
    return F.linear(_merge_heads(causal_attention(q, k, v, angles)), out_proj)


def attention_mixer(
    x: Hidden,
    in_proj: IntoAll,
    out_proj: IntoWidth,
    heads: int,
    angles: Angles | None = None,
    queries: int | None = None,
) -> Asking:
    """The outputs of the last `queries` positions, or of all.

    x (batch, length, width); in_proj (3 width, width): the queries' rows, the keys', the values';
    out_proj (width, width); with `angles` (length, head_width / 2), queries and keys are turned by
    RoPE.  Runs compiled for float32 on the CPU where `causal_attention` does; otherwise as the
    definition.  Bit-identical from call to call, for any number of threads.  Raises ValueError if
    the shapes do not fit together.
    """
    _check_shapes(x, in_proj, out_proj, heads, angles, queries)
    small = is_small(x.shape[1], x.shape[2] // heads)
    if small and native.fits(x, in_proj, out_proj):
        asking = x.shape[1] if queries is None else queries
        out: Tensor = _CompiledAttentionMixer.apply(  # type: ignore[no-untyped-call]
            x, in_proj, out_proj, *tables(angles), heads, asking
        )
        return out
    return attention_mixer_definition(x, in_proj, out_proj, heads, angles, queries)


def _split_heads(x: Hidden, parts: int, heads: int) -> tuple[Heads, ...]:
    """The `parts` of x (batch, length, parts heads head_width), each with an axis of heads."""
    batch, length, width = x.shape
    head_width = width // (parts * heads)
    return x.reshape(batch, length, parts, heads, head_width).permute(2, 0, 3, 1, 4).unbind()


def _merge_heads(x: Queries) -> Asking:
    """The heads of each position beside one another: (batch, length, heads head_width)."""
    return x.transpose(1, 2).flatten(2)


def _check_shapes(
    x: Tensor,
    in_proj: Tensor,
    out_proj: Tensor,
    heads: int,
    angles: Tensor | None,
    queries: int | None,
) -> None:
    """The compiled kernel reads where the shapes say, so they are compared before it may."""
    _, length, width = x.shape
    fit = in_proj.shape == (3 * width, width) and out_proj.shape == (width, width)
    fit = fit and heads > 0 and width % heads == 0 and (queries is None or 0 < queries <= length)
    if angles is not None:
        fit = fit and width // heads % 2 == 0 and angles.shape == (length, width // heads // 2)
    if not fit:
        shapes = [tuple(t.shape) for t in (x, in_proj, out_proj, angles) if t is not None]
        raise ValueError(
            "x must be (batch, length, width), in_proj (3 width, width), out_proj (width, width), "
            "angles (length, head_width / 2), heads must divide the width and queries be in "
            f"1..length; got {', '.join(map(str, shapes))}, {heads} heads, queries {queries}"
        )


def _arguments(
    x: Tensor,
    weights: tuple[Tensor, Tensor],
    turning: tuple[Tensor | None, Tensor | None],
    heads: int,
    queries: int,
) -> native.SelfAttention:
    batch, length, width = x.shape
    in_proj, out_proj = weights
    cosines, sines = turning
    return native.SelfAttention(
        batch=batch,
        length=length,
        width=width,
        heads=heads,
        queries=queries,
        x=x.data_ptr(),
        in_proj=in_proj.data_ptr(),
        out_proj=out_proj.data_ptr(),
        cosines=None if cosines is None else cosines.data_ptr(),
        sines=None if sines is None else sines.data_ptr(),
    )


def _threads(x: Tensor, queries: int) -> int:
    return native.threads(x.numel() * queries // 16)


class _CompiledAttentionMixer(torch.autograd.Function):
    KEPT = ("q", "kv", "mixed", "softmax")

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        in_proj: Tensor,
        out_proj: Tensor,
        cosines: Tensor | None,
        sines: Tensor | None,
        heads: int,
        queries: int,
    ) -> Tensor:
        x, in_proj, out_proj = x.contiguous(), in_proj.contiguous(), out_proj.contiguous()
        batch, length, width = x.shape
        arguments = _arguments(x, (in_proj, out_proj), (cosines, sines), heads, queries)
        out = x.new_empty(batch, queries, width)
        arguments.out = out.data_ptr()
        kept: tuple[Tensor, ...] = ()
        if any(ctx.needs_input_grad):
            kept = (
                torch.empty_like(out),
                x.new_empty(batch, length, 2 * width),
                torch.empty_like(out),
                x.new_empty(batch, heads, 2, queries),
            )
            for name, room in zip(_CompiledAttentionMixer.KEPT, kept, strict=True):
                setattr(arguments, name, room.data_ptr())
        ctx.save_for_backward(x, in_proj, out_proj, cosines, sines, *kept)
        ctx.heads, ctx.queries = heads, queries
        native.call("recall_self_attention_forward", arguments, _threads(x, queries))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        x, in_proj, out_proj, cosines, sines, *kept = ctx.saved_tensors
        weights = (in_proj, out_proj)
        arguments = _arguments(x, weights, (cosines, sines), ctx.heads, ctx.queries)
        for name, tensor in zip(_CompiledAttentionMixer.KEPT, kept, strict=True):
            setattr(arguments, name, tensor.data_ptr())
        grad_out, grad_x = grad_out.contiguous(), torch.empty_like(x)
        shares = native.shares(x.shape[0], weights)
        arguments.grad_out, arguments.grad_x = grad_out.data_ptr(), grad_x.data_ptr()
        arguments.gradients = shares.data_ptr()
        arguments.portions, arguments.numbers = shares.shape
        native.call("recall_self_attention_backward", arguments, _threads(x, ctx.queries))
        into, out = shares[0].split([w.numel() for w in weights])
        return grad_x, into.view_as(in_proj), out.view_as(out_proj), None, None, None, None
