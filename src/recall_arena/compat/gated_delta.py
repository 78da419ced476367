"""flash-linear-attention's delta rules on a CPU: Gated DeltaNet's, KDA's and DeltaNet's.

There a "chunk" function is for training and a "fused_recurrent" one for generation.  Here both are
one kernel, with all gradients.
"""

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from recall_arena.compat.checks import check_integers, check_real, check_shapes, working_type
from recall_arena.kernels.gated_delta import gated_delta

Result = tuple[Tensor, Tensor | None]


def chunk_gated_delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None = None,
    beta: Tensor | None = None,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
    use_qk_l2norm_in_kernel: bool = False,
    cu_seqlens: Tensor | None = None,
    **others: object,
) -> Result:
    """fla's `chunk_gated_delta_rule`: (out, final state), or (out, None).

    q, k (batch, length, heads, key_width); v, out (batch, length, value_heads, value_width), where
    equal groups of neighbouring value heads have a query and a key in common; g, logarithms of
    decays, and beta (batch, length, value_heads).  initial_state and final state (sequences,
    value_heads, key_width, value_width).  `scale` of q is 1 / sqrt(key_width) if it is None.  No g
    is no decay, no beta is 1.  cu_seqlens (sequences + 1,), integers: where each of several packed
    sequences starts, and the last one ends; then batch is 1.

    Numbers are computed in float32, or in float64 if v has it; out has v's type, the state that of
    the computation.  Raises ValueError for shapes that do not fit together, TypeError for numbers
    that are not real, NotImplementedError for `others`, fla's options that are not here, unless
    they are None or False.
    """
    _check_others(others)
    options = (initial_state, output_final_state, use_qk_l2norm_in_kernel, cu_seqlens)
    return _delta_rule(q, k, v, g, None, beta, scale, *options)


def fused_recurrent_gated_delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None = None,
    gk: Tensor | None = None,
    gv: Tensor | None = None,
    beta: Tensor | None = None,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
    use_qk_l2norm_in_kernel: bool = False,
    cu_seqlens: Tensor | None = None,
    **others: object,
) -> Result:
    """fla's `fused_recurrent_gated_delta_rule`; here it has gradients.

    As `chunk_gated_delta_rule`, with gk (batch, length, value_heads, key_width), decays of each
    channel of the keys.  Raises NotImplementedError for gv, decays of the values' channels.
    """
    if gv is not None:
        raise NotImplementedError("gv, a decay for each channel of the values, is not here")
    _check_others(others)
    options = (initial_state, output_final_state, use_qk_l2norm_in_kernel, cu_seqlens)
    return _delta_rule(q, k, v, g, gk, beta, scale, *options)


def chunk_kda(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
    use_qk_l2norm_in_kernel: bool = False,
    cu_seqlens: Tensor | None = None,
    **others: object,
) -> Result:
    """fla's `chunk_kda`: `chunk_gated_delta_rule` with g (batch, length, value_heads, key_width).

    Decays and beta are given as they are, not as what a gate is made of.
    """
    _check_others(others)
    options = (initial_state, output_final_state, use_qk_l2norm_in_kernel, cu_seqlens)
    return _delta_rule(q, k, v, None, g, beta, scale, *options)


fused_recurrent_kda = chunk_kda
"""fla's function for generation: the same, with another way of computing it there."""


def chunk_delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
    use_qk_l2norm_in_kernel: bool = False,
    cu_seqlens: Tensor | None = None,
    **others: object,
) -> Result:
    """fla's `chunk_delta_rule`: `chunk_gated_delta_rule` without decay."""
    _check_others(others)
    options = (initial_state, output_final_state, use_qk_l2norm_in_kernel, cu_seqlens)
    return _delta_rule(q, k, v, None, None, beta, scale, *options)


fused_recurrent_delta_rule = chunk_delta_rule
"""As `fused_recurrent_kda`."""


def _delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None,
    gk: Tensor | None,
    beta: Tensor | None,
    scale: float | None,
    initial_state: Tensor | None,
    output_final_state: bool,
    normalised: bool,
    cu_seqlens: Tensor | None,
) -> Result:
    _check(q, k, v, g, gk, beta, initial_state, cu_seqlens)
    real, group = working_type(v), v.shape[2] // max(1, k.shape[2])
    q, k = (x.to(real).repeat_interleave(group, 2) if group > 1 else x.to(real) for x in (q, k))
    decay = None if g is None else g.to(real)
    if gk is not None:
        decay = gk.to(real) if decay is None else gk.to(real) + decay.unsqueeze(3)
    rate = v.new_ones(v.shape[:3], dtype=real) if beta is None else beta.to(real)
    state = None if initial_state is None else initial_state.to(real)
    values = v.to(real)
    run = partial(gated_delta, normalised=normalised, scale=scale)
    if cu_seqlens is None:
        out, final = run(q, k, values, decay, rate, state)
        return out.to(v.dtype), final if output_final_state else None
    outs, finals = [], []
    for i, (begin, end) in enumerate(cu_seqlens.unfold(0, 2, 1).tolist()):
        own = slice(begin, end)
        faded = None if decay is None else decay[:, own]
        before = None if state is None else state[i : i + 1]
        out, final = run(q[:, own], k[:, own], values[:, own], faded, rate[:, own], before)
        outs.append(out)
        finals.append(final)
    return torch.cat(outs, 1).to(v.dtype), torch.cat(finals) if output_final_state else None


def _check_others(others: Mapping[str, object]) -> None:
    asked = [name for name, value in others.items() if value is not None and value is not False]
    if asked:
        raise NotImplementedError(f"{', '.join(asked)}: of fla's options this one is not here")


def _check(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None,
    gk: Tensor | None,
    beta: Tensor | None,
    state: Tensor | None,
    cu_seqlens: Tensor | None,
) -> None:
    given = {"q": q, "k": k, "v": v, "g": g, "gk": gk, "beta": beta, "initial_state": state}
    check_real(given)
    fit = k.ndim == v.ndim == 4 and q.shape == k.shape and k.shape[:2] == v.shape[:2]
    fit = fit and k.shape[2] > 0 and v.shape[2] % k.shape[2] == 0
    if fit:
        fit = all(x is None or x.shape == v.shape[:3] for x in (g, beta))
        fit = fit and (gk is None or gk.shape == (*v.shape[:3], k.shape[3]))
        sequences = v.shape[0] if cu_seqlens is None else len(cu_seqlens) - 1
        whole = (sequences, v.shape[2], k.shape[3], v.shape[3])
        fit = fit and (state is None or state.shape == whole)
    check_shapes(
        fit,
        "q, k must be (batch, length, heads, key_width), v (batch, length, value_heads, "
        "value_width) where heads divides value_heads, g, beta (batch, length, value_heads), a "
        "decay by channel with key_width behind, initial_state (sequences, value_heads, "
        "key_width, value_width)",
        given,
    )
    if cu_seqlens is None:
        return
    check_integers("cu_seqlens", cu_seqlens)
    bounds, length = cu_seqlens.tolist(), v.shape[1]
    rises = len(bounds) > 1 and bounds == sorted(bounds) and (bounds[0], bounds[-1]) == (0, length)
    if v.shape[0] != 1 or not rises:
        raise ValueError(
            f"cu_seqlens must rise from 0 to {length}, the length, of a batch of 1; "
            f"got {bounds} and a batch of {v.shape[0]}"
        )
