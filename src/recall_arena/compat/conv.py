"""causal-conv1d's short depthwise convolution on a CPU."""

import torch
from torch import Tensor
from torch.nn import functional as F

from recall_arena.compat.types import working_type
from recall_arena.kernels.causal_conv import causal_conv

ACTIVATIONS = (None, "silu", "swish")


def causal_conv1d_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    seq_idx: Tensor | None = None,
    initial_states: Tensor | None = None,
    return_final_states: bool = False,
    final_states_out: Tensor | None = None,
    activation: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """causal-conv1d's `causal_conv1d_fn`: out, or (out, final_states) if `return_final_states`.

    out_t = activation(bias + sum_k weight[k] x_{t - width + 1 + k})

    x, out (batch, dim, length); weight (dim, width); bias (dim,).  initial_states (batch, dim,
    width - 1) stand before x in place of zeros; final_states, of the same shape, are what stands
    before x's continuation, and are written to `final_states_out` if that is given.  seq_idx
    (batch, length), integers, says which of several packed sequences a position belongs to: none
    sees another, and where it is negative the output is 0.

    Compiled with an activation and without seq_idx.  Raises NotImplementedError for activations
    other than None, "silu" and "swish" (which are the same), ValueError for shapes that do not
    fit together and for seq_idx beside states.
    """
    _check_conv(x, weight, bias, seq_idx, initial_states, activation)
    if seq_idx is not None and (initial_states is not None or return_final_states):
        raise ValueError("seq_idx excludes initial_states and return_final_states")
    before, length, real = weight.shape[1] - 1, x.shape[2], working_type(x)
    whole = x if initial_states is None else torch.cat([initial_states.to(x.dtype), x], dim=2)
    constant = weight.new_zeros(weight.shape[0]) if bias is None else bias
    inputs = (whole.to(real), weight.to(real), constant.to(real))

    if activation is not None and seq_idx is None:
        rows, *constants = inputs
        out = causal_conv(rows.transpose(1, 2), *constants).transpose(1, 2)
    else:
        out = _conv_definition(*inputs, seq_idx)
        out = out if activation is None else F.silu(out)
    out = out[..., whole.shape[2] - length :].to(x.dtype)
    if not return_final_states:
        return out
    final_states = F.pad(whole, (before - whole.shape[2], 0))
    return out, final_states if final_states_out is None else final_states_out.copy_(final_states)


def _check_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    seq_idx: Tensor | None,
    states: Tensor | None,
    activation: str | None,
) -> None:
    if activation not in ACTIVATIONS:
        raise NotImplementedError(f"activation must be None, silu or swish; got {activation!r}")
    fit = x.dim() == 3 and weight.dim() == 2 and x.shape[1] == weight.shape[0]
    fit = fit and (bias is None or bias.shape == weight.shape[:1])
    fit = fit and (seq_idx is None or seq_idx.shape == (x.shape[0], x.shape[2]))
    if not (fit and (states is None or states.shape == (*x.shape[:2], weight.shape[1] - 1))):
        given = (x, weight, bias, seq_idx, states)
        shapes = ", ".join("None" if t is None else str(tuple(t.shape)) for t in given)
        raise ValueError(
            "x must be (batch, dim, length), weight (dim, width), bias (dim,), seq_idx (batch, "
            f"length), initial_states (batch, dim, width - 1); got {shapes}"
        )


def _conv_definition(x: Tensor, weight: Tensor, bias: Tensor, seq_idx: Tensor | None) -> Tensor:
    """The sum over the window, without an activation."""
    length, width = x.shape[2], weight.shape[1]
    y = bias.unsqueeze(1).expand(x.shape)
    for k in range(width):
        lag = width - 1 - k
        seen = F.pad(x, (lag, 0))[..., :length]
        if seq_idx is not None:
            same = F.pad(seq_idx, (lag, 0))[..., :length] == seq_idx
            seen = seen.where(same.unsqueeze(1), 0)
        y = y + weight[:, k].unsqueeze(1) * seen
    return y if seq_idx is None else y.where(seq_idx.unsqueeze(1) >= 0, 0)


def causal_conv1d_update(
    x: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    cache_seqlens: Tensor | None = None,
    conv_state_indices: Tensor | None = None,
) -> Tensor:
    """causal-conv1d's `causal_conv1d_update`: the outputs of further positions, for generation.

    x and the result (batch, dim) or (batch, dim, length); conv_state (batch, dim, at least
    width - 1), the inputs before x, is moved on by x in place; weight (dim, width); bias (dim,).
    Raises NotImplementedError as `causal_conv1d_fn`, and for `cache_seqlens` (a circular buffer)
    and `conv_state_indices`; ValueError if the shapes do not fit together.
    """
    if cache_seqlens is not None or conv_state_indices is not None:
        raise NotImplementedError("cache_seqlens and conv_state_indices are not supported")
    new = x.unsqueeze(2) if x.dim() == 2 else x
    before, kept = weight.shape[-1] - 1, conv_state.shape[-1]
    if new.shape[:2] != conv_state.shape[:2] or kept < before:
        raise ValueError(
            "x must be (batch, dim) or (batch, dim, length), conv_state (batch, dim, at least "
            f"width - 1); got {tuple(x.shape)}, {tuple(conv_state.shape)} for width {before + 1}"
        )
    past = conv_state[..., kept - before :]
    out = causal_conv1d_fn(new, weight, bias, initial_states=past, activation=activation)
    conv_state.copy_(torch.cat([conv_state, new.to(conv_state.dtype)], dim=2)[..., new.shape[2] :])
    assert isinstance(out, Tensor)
    return out.squeeze(2) if x.dim() == 2 else out
