"""causal-conv1d's short depthwise convolution on a CPU."""

import torch
from torch import Tensor
from torch.nn import functional as F

from recall_arena.compat.checks import check_integers, check_real, check_shapes, working_type
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
    fit together and for seq_idx beside states, TypeError for numbers that are not real and for
    an activation in the place of seq_idx, where old releases of causal-conv1d had it.
    """
    if isinstance(seq_idx, str):
        raise TypeError(
            f"the fourth argument is seq_idx, integers (batch, length), got {seq_idx!r}; the "
            f"activation, which stood there in old causal-conv1d, needs its name: "
            f"activation={seq_idx!r}"
        )
    _check(x, weight, bias, seq_idx, initial_states, activation)
    if seq_idx is not None and (initial_states is not None or return_final_states):
        raise ValueError("seq_idx excludes initial_states and return_final_states")
    before, length, real = weight.shape[1] - 1, x.shape[2], working_type(x)
    whole = x.to(real)
    if initial_states is not None:
        whole = torch.cat([initial_states.to(real), whole], dim=2)
    constant = x.new_zeros(x.shape[1], dtype=real) if bias is None else bias.to(real)

    if activation is not None and seq_idx is None:
        out = causal_conv(whole.transpose(1, 2), weight.to(real), constant).transpose(1, 2)
    else:
        out = _definition(whole, weight.to(real), constant, seq_idx)
        out = out if activation is None else F.silu(out)
    out = out[..., whole.shape[2] - length :].to(x.dtype)
    if not return_final_states:
        return out
    final_states = F.pad(whole, (before - whole.shape[2], 0)).to(x.dtype)
    if final_states_out is None:
        return out, final_states
    wanted = {"final_states_out": final_states_out}
    fit = final_states_out.shape == final_states.shape
    check_shapes(fit, f"final_states_out must be {tuple(final_states.shape)}", wanted)
    return out, final_states_out.copy_(final_states)


def _check(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    seq_idx: Tensor | None,
    states: Tensor | None,
    activation: str | None,
) -> None:
    if activation not in ACTIVATIONS:
        raise NotImplementedError(f"activation must be None, silu or swish; got {activation!r}")
    given = {"x": x, "weight": weight, "bias": bias, "initial_states": states}
    check_real(given)
    if seq_idx is not None:
        check_integers("seq_idx", seq_idx)
    fit = x.dim() == 3 and weight.dim() == 2 and x.shape[1] == weight.shape[0]
    fit = fit and weight.shape[1] > 0 and (bias is None or bias.shape == weight.shape[:1])
    fit = fit and (seq_idx is None or seq_idx.shape == (x.shape[0], x.shape[2]))
    fit = fit and (states is None or states.shape == (*x.shape[:2], weight.shape[1] - 1))
    check_shapes(
        fit,
        "x must be (batch, dim, length), weight (dim, width), bias (dim,), initial_states (batch, "
        "dim, width - 1), seq_idx (batch, length)",
        {**given, "seq_idx": seq_idx},
    )


def _definition(x: Tensor, weight: Tensor, bias: Tensor, seq_idx: Tensor | None) -> Tensor:
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
