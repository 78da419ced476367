"""causal-conv1d's convolution by further positions, for generation, and its states."""

import torch
from torch import Tensor
from torch.nn import functional as F

from recall_arena.compat.checks import (
    check_integers,
    check_real,
    check_shapes,
    rows_and_slots,
    working_type,
)
from recall_arena.compat.conv import causal_conv1d_fn


def causal_conv1d_update(
    x: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    cache_seqlens: Tensor | None = None,
    conv_state_indices: Tensor | None = None,
) -> Tensor:
    """causal-conv1d's `causal_conv1d_update`: the outputs of further positions; x's shape and type.

    x (batch, dim) or (batch, dim, length); weight (dim, width); bias (dim,).  conv_state (batch,
    dim, size), size at least width - 1, holds the inputs before x, the latest last, and x enters
    it in place.  cache_seqlens (batch,), integers: how many inputs came before; then conv_state
    is a circular buffer, in which input i stands at i modulo size.  conv_state_indices (batch,),
    integers: the row of conv_state that belongs to each row of x, of a conv_state with any
    number of rows; where it is negative the output is 0.

    Raises NotImplementedError and TypeError as `causal_conv1d_fn`, ValueError for shapes that do
    not fit together, for a negative cache_seqlens and for an index without a row.
    """
    given = {"x": x, "conv_state": conv_state}
    check_real(given)
    if conv_state_indices is not None:
        rows, slots = rows_and_slots(
            "conv_state_indices", conv_state_indices, len(x), len(conv_state)
        )
        chosen, outs = conv_state[slots], x.new_zeros(x.shape)
        lengths = None if cache_seqlens is None else cache_seqlens[rows]
        outs[rows] = causal_conv1d_update(x[rows], chosen, weight, bias, activation, lengths)
        conv_state[slots] = chosen
        return outs
    new = x.unsqueeze(2) if x.dim() == 2 else x
    before = weight.shape[-1] - 1
    fit = new.dim() == conv_state.dim() == 3 and new.shape[:2] == conv_state.shape[:2]
    check_shapes(
        fit and conv_state.shape[2] >= before,
        "x must be (batch, dim) or (batch, dim, length), conv_state (batch, dim, at least width "
        f"- 1 = {before})",
        given,
    )
    past, after = (
        _shifted(new, conv_state, before)
        if cache_seqlens is None
        else _circular(new, conv_state, before, cache_seqlens)
    )
    out = causal_conv1d_fn(new, weight, bias, initial_states=past, activation=activation)
    conv_state.copy_(after)
    assert isinstance(out, Tensor)
    return out.squeeze(2) if x.dim() == 2 else out


def _shifted(x: Tensor, state: Tensor, before: int) -> tuple[Tensor, Tensor]:
    """The inputs before x, (batch, dim, before), and the state after it."""
    real, size = working_type(x), state.shape[2]
    whole = torch.cat([state.to(real), x.to(real)], dim=2)
    return whole[..., size - before : size], whole[..., x.shape[2] :]


def _circular(x: Tensor, state: Tensor, before: int, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """The same for a circular buffer."""
    check_integers("cache_seqlens", lengths)
    if lengths.shape != x.shape[:1] or bool((lengths < 0).any()):
        raise ValueError(f"cache_seqlens must be (batch,), none below 0, got {lengths.tolist()}")
    size, length, start = state.shape[2], x.shape[2], lengths.long().unsqueeze(1)

    def places(first: int, stop: int) -> Tensor:
        place = (torch.arange(first, stop, device=x.device) + start) % max(size, 1)
        return place.unsqueeze(1).expand(-1, x.shape[1], -1)

    past = state.gather(2, places(-before, 0))
    latest = x[..., max(length - size, 0) :].to(state.dtype)
    return past, state.scatter(2, places(length - latest.shape[2], length), latest)


def causal_conv1d_varlen_states(x: Tensor, cu_seqlens: Tensor, state_len: int) -> Tensor:
    """causal-conv1d's `causal_conv1d_varlen_states`: the last inputs of each packed sequence.

    x (total, dim), sequence after sequence; cu_seqlens (batch + 1,), integers, where each starts
    and the last one ends.  Returns states (batch, dim, state_len) in x's type, zero before the
    start of a sequence, for `causal_conv1d_update`.  Raises ValueError if cu_seqlens falls or
    leaves x, or shapes do not fit together, TypeError for other kinds of numbers.
    """
    check_real({"x": x})
    check_integers("cu_seqlens", cu_seqlens)
    fit = x.dim() == 2 and cu_seqlens.dim() == 1 and len(cu_seqlens) > 0 and state_len >= 0
    allowed = f"x must be (total, dim), cu_seqlens (batch + 1,), state_len={state_len} at least 0"
    check_shapes(fit, allowed, {"x": x, "cu_seqlens": cu_seqlens})
    bounds = cu_seqlens.long()
    if bool((bounds.diff() < 0).any()) or bounds[0] < 0 or bounds[-1] > len(x):
        raise ValueError(
            f"cu_seqlens must rise from 0 to at most {len(x)}, the rows of x; "
            f"got {cu_seqlens.tolist()}"
        )
    starts, ends = bounds[:-1, None], bounds[1:, None]
    places = ends + torch.arange(-state_len, 0, device=x.device)
    places = places.where(places >= starts, len(x))  # a row of zeros follows the last one
    return F.pad(x, (0, 0, 0, 1))[places].transpose(1, 2)
