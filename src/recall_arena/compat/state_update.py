"""mamba-ssm's step of the selective scan by one token, for generation."""

import torch
from torch import Tensor
from torch.nn import functional as F

from recall_arena.compat.checks import check_real, check_shapes, rows_and_slots, working_type


def selective_state_update(
    state: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
    state_batch_indices: Tensor | None = None,
) -> Tensor:
    """mamba-ssm's `selective_state_update`: one step of the scan; x's shape and type.

    state (batch, dim, state) is overwritten; x, dt, z (batch, dim); A (dim, state), real; B, C
    (batch, state); D, dt_bias (dim,).  With heads (Mamba-2): state (batch, heads, dim, state);
    x, dt, z (batch, heads, dim); A (heads, dim, state); B, C (batch, groups, state) for equal
    groups of neighbouring heads; D, dt_bias (heads, dim).

    state_batch_indices (batch,), integers: the row of `state` that belongs to each row of x, of
    a `state` with any number of rows; where it is negative the output is 0.

    Raises ValueError if the shapes do not fit together or an index does not, TypeError for
    numbers that are not real.
    """
    check_real({"state": state, "x": x, "dt": dt, "A": A, "B": B, "C": C})
    check_real({"D": D, "z": z, "dt_bias": dt_bias})
    if state_batch_indices is not None:
        rows, slots = rows_and_slots("state_batch_indices", state_batch_indices, len(x), len(state))
        chosen, out = state[slots], x.new_zeros(x.shape)
        z = None if z is None else z[rows]
        out[rows] = selective_state_update(
            chosen, x[rows], dt[rows], A, B[rows], C[rows], D, z, dt_bias, dt_softplus
        )
        state[slots] = chosen
        return out
    heads = _with_heads(state, 1, 4)
    x_, dt_, B_, C_ = (_with_heads(tensor, 1, 3) for tensor in (x, dt, B, C))
    gate = None if z is None else _with_heads(z, 1, 3)
    skip, bias = (None if c is None else _with_heads(c, 0, 2) for c in (D, dt_bias))
    out = _step(heads, x_, dt_, _with_heads(A, 0, 3), B_, C_, skip, gate, bias, dt_softplus)
    return out if state.dim() == 4 else out.squeeze(1)


def _with_heads(x: Tensor, axis: int, axes: int) -> Tensor:
    """x, or x with one head where it has none."""
    return x.unsqueeze(axis) if x.dim() == axes - 1 else x


def _step(
    state: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    dt_bias: Tensor | None,
    dt_softplus: bool,
) -> Tensor:
    """The update of a state with heads."""
    given = {"state": state, "x": x, "dt": dt, "A": A, "B": B, "C": C, "D": D, "z": z}
    fit = state.dim() == 4 and B.dim() == 3 and all(state.shape) and B.shape[1] > 0
    if fit:
        batch, heads, dim, size = state.shape
        groups = B.shape[1]
        fit = all(t is None or t.shape == (batch, heads, dim) for t in (x, dt, z))
        fit = fit and all(c is None or c.shape == (heads, dim) for c in (D, dt_bias))
        fit = fit and A.shape == (heads, dim, size) and heads % groups == 0
        fit = fit and B.shape == C.shape == (batch, groups, size)
    check_shapes(
        fit,
        "state must be (batch, [heads,] dim, state), x, dt, z (batch, [heads,] dim), A ([heads,] "
        "dim, state), B, C (batch, [groups,] state) where groups divides heads, D, dt_bias "
        "([heads,] dim)",
        {**given, "dt_bias": dt_bias},
    )
    real = working_type(x)
    dt = dt.to(real) if dt_bias is None else dt.to(real) + dt_bias.to(real)
    dt = F.softplus(dt) if dt_softplus else dt
    B, C = (t.to(real).repeat_interleave(heads // groups, dim=1).unsqueeze(2) for t in (B, C))
    # A copy where gradients are recorded, since the state itself is overwritten below.
    before = state.to(real, copy=torch.is_grad_enabled())
    decay = torch.exp(dt.unsqueeze(-1) * A.to(real))
    h = decay * before + (dt * x.to(real)).unsqueeze(-1) * B
    h = h.to(state.dtype)
    state.copy_(h)
    y = (h.to(real) * C).sum(-1)  # of the state as it is stored, as in mamba-ssm's reference
    y = y if D is None else y + D.to(real) * x.to(real)
    return (y if z is None else y * F.silu(z.to(real))).to(x.dtype)
