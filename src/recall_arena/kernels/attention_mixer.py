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

from recall_arena.kernels import native, structs
from recall_arena.kernels.causal_attention import (
    RotaryTable,
    causal_attention,
    is_small,
)
from recall_arena.kernels.residual import Norm, check_norm, native_norm
from recall_arena.shapes import Heads, Hidden, Queries

IntoAll = Float[Tensor, "three_widths width"]
IntoWidth = Float[Tensor, "width width"]
Asking = Float[Tensor, "batch queries width"]


def attention_mixer_definition(
    x: Hidden,
    in_proj: IntoAll,
    out_proj: IntoWidth,
    heads: int,
    rotary: RotaryTable | None = None,
    queries: int | None = None,
    norm: Norm | None = None,
) -> Asking:
    """The equations.  Any float type, any device."""
    width = x.shape[2]
    asking = x if queries is None else x[:, x.shape[1] - queries :]
    if norm is not None:
        mixed = attention_mixer_definition(norm(x), in_proj, out_proj, heads, rotary, queries)
        return asking + mixed
    (q,) = _split_heads(F.linear(asking, in_proj[:width]), 1, heads)
    k, v = _split_heads(F.linear(x, in_proj[width:]), 2, heads)
    return F.linear(_merge_heads(causal_attention(q, k, v, rotary)), out_proj)


def attention_mixer(
    x: Hidden,
    in_proj: IntoAll,
    out_proj: IntoWidth,
    heads: int,
    rotary: RotaryTable | None = None,
    queries: int | None = None,
    norm: Norm | None = None,
) -> Asking:
    """The outputs of the last `queries` positions, or of all; with a norm, the residual block's.

    x (batch, length, width); in_proj (3 width, width): the queries' rows, the keys', the values';
    out_proj (width, width); with the `rotary` table of the length's positions, queries and keys
    are turned by RoPE.  Runs compiled for float32 on the CPU where `causal_attention` does;
    otherwise as the definition.  Bit-identical from call to call, for any number of threads.
    Raises ValueError if the shapes do not fit together.
    """
    check_weights(x.shape, in_proj, out_proj, heads, rotary, queries)
    check_norm(norm, x.shape[2])
    normal = () if norm is None else (norm.weight, norm.bias)
    small = is_small(x.shape[1], x.shape[2] // heads)
    if not (small and native.fits(x, in_proj, out_proj, *normal, *native.given(rotary))):
        return attention_mixer_definition(x, in_proj, out_proj, heads, rotary, queries, norm)
    asking = x.shape[1] if queries is None else queries
    epsilon = 0.0 if norm is None else norm.epsilon
    out: Tensor = _CompiledAttentionMixer.apply(  # type: ignore[no-untyped-call]
        heads, asking, epsilon, rotary, x, in_proj, out_proj, *normal
    )
    return out


def _split_heads(x: Hidden, parts: int, heads: int) -> tuple[Heads, ...]:
    """The `parts` of x (batch, length, parts heads head_width), each with an axis of heads."""
    batch, length, width = x.shape
    head_width = width // (parts * heads)
    return x.reshape(batch, length, parts, heads, head_width).permute(2, 0, 3, 1, 4).unbind()


def _merge_heads(x: Queries) -> Asking:
    """The heads of each position beside one another: (batch, length, heads head_width)."""
    return x.transpose(1, 2).flatten(2)


def check_weights(
    shape: torch.Size,
    in_proj: Tensor,
    out_proj: Tensor,
    heads: int,
    rotary: Tensor | None = None,
    queries: int | None = None,
) -> None:
    """Raises ValueError if these do not fit to x of this shape.

    The compiled kernel reads where the shapes say, so they are compared before it may.
    """
    _, length, width = shape
    fit = in_proj.shape == (3 * width, width) and out_proj.shape == (width, width)
    fit = fit and heads > 0 and width % heads == 0 and (queries is None or 0 < queries <= length)
    if rotary is not None:
        fit = fit and width // heads % 2 == 0 and rotary.shape == (2, length, width // heads // 2)
    if not fit:
        weights = [tuple(t.shape) for t in (in_proj, out_proj, rotary) if t is not None]
        shapes = [tuple(shape), *weights]
        raise ValueError(
            "x must be (batch, length, width), in_proj (3 width, width), out_proj (width, width), "
            "rotary (2, length, head_width / 2), heads must divide the width and queries be in "
            f"1..length; got {', '.join(map(str, shapes))}, {heads} heads, queries {queries}"
        )


def arguments(
    shape: torch.Size,
    weights: tuple[Tensor, ...],
    rotary: Tensor | None,
    heads: int,
    queries: int,
    epsilon: float,
) -> structs.SelfAttention:
    """The struct for x of this shape, in_proj, out_proj, and a norm's weights if there is one."""
    batch, length, width = shape
    in_proj, out_proj, *normal = weights
    return structs.SelfAttention(
        batch=batch,
        length=length,
        width=width,
        heads=heads,
        queries=queries,
        norm=native_norm(tuple(normal), epsilon),
        in_proj=in_proj.data_ptr(),
        out_proj=out_proj.data_ptr(),
        numbers=sum(w.numel() for w in weights),
        **structs.rotary(rotary),
    )


def _kept(x: Tensor, heads: int, queries: int) -> dict[str, Tensor]:
    """Room for what the backward pass reads again, by its name in the kernel."""
    batch, length, width = x.shape
    return {
        "q": x.new_empty(batch, queries, width),
        "kv": x.new_empty(batch, length, 2 * width),
        "mixed": x.new_empty(batch, queries, width),
        "softmax": x.new_empty(batch, heads, 2, queries),
    }


def _threads(x: Tensor, queries: int) -> int:
    return native.threads(x.numel() * queries // 16)


class _CompiledAttentionMixer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        heads: int,
        queries: int,
        epsilon: float,
        rotary: Tensor | None,
        x: Tensor,
        *given: Tensor,
    ) -> Tensor:
        x, weights = x.contiguous(), tuple(w.contiguous() for w in given)
        out = x.new_empty(x.shape[0], queries, x.shape[2])
        kept = _kept(x, heads, queries) if any(ctx.needs_input_grad) else {}
        ctx.kept, ctx.rest = tuple(kept), (heads, queries, epsilon)
        call = arguments(x.shape, weights, rotary, *ctx.rest)
        call.x, call.out = x.data_ptr(), out.data_ptr()
        for name, room in kept.items():
            setattr(call, name, room.data_ptr())
        ctx.save_for_backward(rotary, x, *weights, *kept.values())
        native.call("recall_self_attention_forward", call, _threads(x, queries))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        rotary, x, *saved = ctx.saved_tensors
        weights, kept = tuple(saved[: -len(ctx.kept)]), saved[-len(ctx.kept) :]
        call = arguments(x.shape, weights, rotary, *ctx.rest)
        for name, tensor in zip(ctx.kept, kept, strict=True):
            setattr(call, name, tensor.data_ptr())
        grad_out, grad_x = grad_out.contiguous(), torch.empty_like(x)
        shares = native.shares(x.shape[0], weights)
        call.x, call.grad_out, call.grad_x = x.data_ptr(), grad_out.data_ptr(), grad_x.data_ptr()
        call.portions, call.gradients = shares.shape[0], shares.data_ptr()
        _, queries, _ = ctx.rest
        native.call("recall_self_attention_backward", call, _threads(x, queries))
        parts = shares[0].split([w.numel() for w in weights])
        gradients = (part.view_as(w) for part, w in zip(parts, weights, strict=True))
        return *(None,) * 4, grad_x, *gradients
