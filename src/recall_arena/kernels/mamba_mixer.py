"""Mamba's mixer from end to end (Gu & Dao 2023, arXiv:2312.00752, figure 3).

    u, z        = in_proj x
    u           = silu(conv1d u)
    delta, B, C = x_proj u
    out         = out_proj(scan(u, dt_proj delta, -exp(A_log), B, C, D) silu(z))

`mamba_mixer_definition` says what this means; `mamba_mixer` works through it a few sequences at a
time, so that what one line leaves is still in the cache when the next one reads it.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from recall_arena.kernels import native, structs
from recall_arena.kernels.causal_conv import causal_conv
from recall_arena.kernels.residual import Norm, check_norm, native_norm
from recall_arena.kernels.selective_scan import selective_scan
from recall_arena.shapes import Channels, Hidden, LastHidden, Selection

PerChannel = Float[Tensor, " channels"]


class MambaWeights(NamedTuple):
    """The mixer's weights, as torch's modules and the authors' code lay them out."""

    in_proj: Float[Tensor, "twice_channels width"]
    conv1d: Float[Tensor, "channels 1 window"]
    conv_bias: PerChannel
    x_proj: Float[Tensor, "selected channels"]
    dt_proj: Float[Tensor, "channels rank"]
    A_log: Float[Tensor, "channels state"]
    D: PerChannel
    dt_bias: PerChannel
    out_proj: Float[Tensor, "width channels"]

    def select(self, u: Channels) -> tuple[Channels, Selection, Selection]:
        """delta, before dt_proj's bias and the softplus, and B and C, at each position."""
        state, rank = self.A_log.shape[1], self.dt_proj.shape[1]
        delta, B, C = F.linear(u, self.x_proj).split([rank, state, state], dim=-1)
        return F.linear(delta, self.dt_proj), B, C


def mamba_mixer_definition(x: Hidden, weights: MambaWeights, norm: Norm | None = None) -> Hidden:
    """The figure, one line a box.  Any float type, any device."""
    if norm is not None:
        return x + mamba_mixer_definition(norm(x), weights)
    w = weights
    u, z = F.linear(x, w.in_proj).chunk(2, dim=-1)
    u = causal_conv(u, w.conv1d.squeeze(1), w.conv_bias)
    delta, B, C = w.select(u)
    y = selective_scan(u, delta, -w.A_log.exp(), B, C, w.D, z, w.dt_bias)
    return F.linear(y, w.out_proj)


def mamba_mixer(x: Hidden, weights: MambaWeights, norm: Norm | None = None) -> Hidden:
    """Every position's output; with a norm, that of the residual block.

    Runs compiled for float32 on the CPU with at most 256 states and a window of at most 16;
    otherwise as the definition.  Bit-identical from call to call, for any number of threads.
    Raises ValueError if the shapes do not fit together.
    """
    out = _mixed(x, weights, norm, last=False)
    return mamba_mixer_definition(x, weights, norm) if out is None else out


def last_mamba_mixer(x: Hidden, weights: MambaWeights, norm: Norm | None = None) -> LastHidden:
    """`mamba_mixer` at the last position alone: the same numbers for less work."""
    out = _mixed(x, weights, norm, last=True)
    return mamba_mixer_definition(x, weights, norm)[:, -1] if out is None else out


def _mixed(x: Tensor, weights: MambaWeights, norm: Norm | None, *, last: bool) -> Tensor | None:
    """What the compiled kernel gives, None where it does not take these tensors."""
    check_weights(x.shape[2], weights)
    check_norm(norm, x.shape[2])
    tensors = weights if norm is None else (*weights, norm.weight, norm.bias)
    if not (native.fits(x, *tensors) and has_room(weights)):
        return None
    epsilon = 0.0 if norm is None else norm.epsilon
    out: Tensor = _CompiledMamba.apply(last, epsilon, x, *tensors)  # type: ignore[no-untyped-call]
    return out


def has_room(weights: MambaWeights) -> bool:
    """Whether the compiled kernel has room for so many states and so long a window."""
    return (
        weights.A_log.shape[1] <= native.LARGEST_STATE
        and weights.conv1d.shape[2] <= native.LARGEST_WINDOW
    )


def check_weights(width: int, weights: MambaWeights) -> None:
    """Raises ValueError if the weights are not those of a mixer of this width.

    The compiled kernel reads where the shapes say, so they are compared before it may.
    """
    (channels, state), rank = weights.A_log.shape, weights.dt_proj.shape[1]
    window = weights.conv1d.shape[2]
    expected = (
        (2 * channels, width),
        (channels, 1, window),
        (channels,),
        (rank + 2 * state, channels),
        (channels, rank),
        (channels, state),
        (channels,),
        (channels,),
        (width, channels),
    )
    for name, weight, shape in zip(weights._fields, weights, expected, strict=True):
        if weight.shape != shape:
            raise ValueError(
                f"{name} must be {shape} where the width is {width}, A_log {(channels, state)} "
                f"and dt_proj {tuple(weights.dt_proj.shape)}; got {tuple(weight.shape)}"
            )


MIXER = len(MambaWeights._fields)
"""How many of the tensors are the mixer's weights; those of the norm may follow."""


def arguments(
    shape: torch.Size, tensors: tuple[Tensor, ...], epsilon: float, last: bool
) -> structs.Mamba:
    """The struct for x of this shape and for weights, then those of a norm, if there is one."""
    w = MambaWeights(*tensors[:MIXER])
    (batch, length, width), (channels, state) = shape, w.A_log.shape
    return structs.Mamba(
        batch=batch,
        length=length,
        width=width,
        channels=channels,
        state=state,
        window=w.conv1d.shape[2],
        rank=w.dt_proj.shape[1],
        norm=native_norm(tensors[MIXER:], epsilon),
        in_proj=w.in_proj.data_ptr(),
        conv_weight=w.conv1d.data_ptr(),
        conv_bias=w.conv_bias.data_ptr(),
        x_proj=w.x_proj.data_ptr(),
        dt_weight=w.dt_proj.data_ptr(),
        dt_bias=w.dt_bias.data_ptr(),
        A_log=w.A_log.data_ptr(),
        D=w.D.data_ptr(),
        out_proj=w.out_proj.data_ptr(),
        numbers=sum(w.numel() for w in tensors),
        last=last,
    )


def _kept(x: Tensor, weights: MambaWeights, last: bool) -> dict[str, Tensor]:
    """Room for what the backward pass reads again, by its name in the kernel."""
    batch, length, _ = x.shape
    selected, channels = weights.x_proj.shape
    chunks = -(-length // native.SCAN_CHUNK)
    return {
        "before": x.new_empty(batch, length, channels),
        "z": x.new_empty(batch, 1 if last else length, channels),
        "u": x.new_empty(batch, length, channels),
        "selection": x.new_empty(batch, length, selected),
        "states": x.new_empty(batch, chunks, weights.A_log.shape[1], channels),
    }


def _threads(x: Tensor, weights: MambaWeights) -> int:
    return native.threads(x.shape[0] * x.shape[1] * weights.D.shape[0])


CHANNELS_LAST = ("conv1d", "dt_proj", "A_log")
"""The weights whose gradients the kernel keeps with the channels last."""


def _unpacked(share: Tensor, tensors: tuple[Tensor, ...]) -> list[Tensor]:
    """The gradients of the weights, and of the norm's."""
    names = (*MambaWeights._fields, "norm.weight", "norm.bias")[: len(tensors)]
    return [
        part.view(w.shape[-1], w.shape[0]).t().view(w.shape)
        if name in CHANNELS_LAST
        else part.view(w.shape)
        for name, part, w in zip(
            names, share.split([w.numel() for w in tensors]), tensors, strict=True
        )
    ]


class _CompiledMamba(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, last: bool, epsilon: float, x: Tensor, *given: Tensor) -> Tensor:
        x, tensors = x.contiguous(), tuple(w.contiguous() for w in given)
        weights = MambaWeights(*tensors[:MIXER])
        out = torch.empty_like(x[:, -1] if last else x)
        kept = _kept(x, weights, last) if any(ctx.needs_input_grad) else {}
        call = arguments(x.shape, tensors, epsilon, last)
        call.x, call.out = x.data_ptr(), out.data_ptr()
        for name, room in kept.items():
            setattr(call, name, room.data_ptr())
        ctx.save_for_backward(x, *tensors, *kept.values())
        ctx.kept, ctx.last, ctx.epsilon = tuple(kept), last, epsilon
        native.call("recall_mamba_forward", call, _threads(x, weights))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        x, *saved = ctx.saved_tensors
        tensors, kept = tuple(saved[: -len(ctx.kept)]), saved[-len(ctx.kept) :]
        grad_out, grad_x = grad_out.contiguous(), torch.empty_like(x)
        shares = native.shares(x.shape[0], tensors)

        call = arguments(x.shape, tensors, ctx.epsilon, ctx.last)
        for name, tensor in zip(ctx.kept, kept, strict=True):
            setattr(call, name, tensor.data_ptr())
        call.x, call.grad_out, call.grad_x = x.data_ptr(), grad_out.data_ptr(), grad_x.data_ptr()
        call.portions, call.gradients = shares.shape[0], shares.data_ptr()
        native.call("recall_mamba_backward", call, _threads(x, MambaWeights(*tensors[:MIXER])))
        return None, None, grad_x, *_unpacked(shares[0], tensors)
