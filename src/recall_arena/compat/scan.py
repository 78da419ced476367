"""mamba-ssm's selective scan (Gu & Dao 2023, arXiv:2312.00752, section 3.2) on a CPU."""

import torch
from torch import Tensor
from torch.nn import functional as F

from recall_arena.compat.checks import check_real, check_shapes, working_type
from recall_arena.kernels.selective_scan import continued_scan, selective_scan

LOUD = 64.0  # silu(64) is 64 in floating point, and a power of two scales without rounding
STILL = -1e30  # softplus makes a time step of exactly 0 from it: the state stays as it is


def selective_scan_fn(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """mamba-ssm's `selective_scan_fn`: out, or (out, last_state) if `return_last_state`.

        h_t   = exp(Delta_t A) h_{t-1} + Delta_t u_t B_t     Delta = softplus(delta + delta_bias)
        out_t = (C_t . h_t + D u_t) silu(z_t)                twice the real part if A is complex

    u, delta, z, out (batch, dim, length); A (dim, state), real or complex; D, delta_bias (dim,);
    last_state (batch, dim, state).  B, C (dim, state), the same at all positions, or (batch,
    state, length), or (batch, groups, state, length) for equal groups of neighbouring channels;
    with a complex A the latter two are real, 2 length long, and alternate real and imaginary
    parts.  None leaves D, z or delta_bias out, delta_softplus=False the softplus.

    Unlike mamba-ssm's, the last state has gradients.  Compiled if delta_softplus, A is real and
    B and C vary in the same groups.  Raises ValueError if the shapes do not fit together,
    TypeError for complex numbers anywhere but in A and, with it, in constant B and C.
    """
    _check_scan(u, delta, A, B, C, D, z, delta_bias)
    given, real = u.dtype, working_type(u)
    u, delta, A = u.to(real), delta.to(real), A.to(real.to_complex() if A.is_complex() else real)
    B, C = _in_groups(B, A, u), _in_groups(C, A, u)
    D = u.new_zeros(u.shape[1]) if D is None else D.to(real)
    delta_bias = u.new_zeros(u.shape[1]) if delta_bias is None else delta_bias.to(real)
    z = None if z is None else z.to(real)

    if delta_softplus and B.dim() == C.dim() == 4 and B.shape == C.shape and not A.is_complex():
        out, *last = _scan_groups(u, delta, A, B, C, D, z, delta_bias, return_last_state)
    else:
        delta = delta + delta_bias.unsqueeze(1)
        delta = F.softplus(delta) if delta_softplus else delta
        out, *last = _scan_definition(u, delta, A, B, C, D, z)
    return (out.to(given), last[0]) if return_last_state else out.to(given)


def _check_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
) -> None:
    check_real({"u": u, "delta": delta, "D": D, "z": z, "delta_bias": delta_bias})
    for name, x in (("A", A), ("B", B), ("C", C)):
        if not (A.is_complex() and x.is_complex() and x.dim() == 2):
            check_real({name: x})
    fit = u.dim() == 3 and A.dim() == 2 and A.shape[0] == u.shape[1]
    if fit:
        batch, dim, length = u.shape
        fit = all(x is None or x.shape == u.shape for x in (delta, z))
        fit = fit and all(x is None or x.shape == (dim,) for x in (D, delta_bias))
        for selection in (B, C):
            groups = selection.shape[1:-2]
            varying = (batch, *groups, A.shape[1], (2 if A.is_complex() else 1) * length)
            divides = len(groups) <= 1 and all(n > 0 and dim % n == 0 for n in groups)
            fit = fit and selection.shape in ([A.shape, varying] if divides else [A.shape])
    check_shapes(
        fit,
        "u, delta, z must be (batch, dim, length), A (dim, state), B, C (dim, state), (batch, "
        "state, length) or (batch, groups, state, length), twice as long with a complex A, where "
        "groups divides dim, D, delta_bias (dim,)",
        {"u": u, "delta": delta, "A": A, "B": B, "C": C, "D": D, "z": z, "delta_bias": delta_bias},
    )


def _in_groups(selection: Tensor, A: Tensor, u: Tensor) -> Tensor:
    """B or C in A's type: (dim, state) as it is, else (batch, groups, state, length)."""
    if selection.dim() == 2:
        return selection.to(A.dtype)
    if A.is_complex():
        pairs = selection.to(u.dtype).unflatten(-1, (u.shape[2], 2))
        selection = torch.view_as_complex(pairs.contiguous())
    grouped = selection if selection.dim() == 4 else selection.unsqueeze(1)
    return grouped.to(A.dtype)


def _scan_groups(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor | None,
    delta_bias: Tensor,
    with_state: bool,
) -> tuple[Tensor, ...]:
    """(out,) or (out, last_state) by `selective_scan`, one group of channels after another."""
    groups = B.shape[1]
    size = u.shape[1] // groups
    results = []
    for g in range(groups):
        own = slice(g * size, (g + 1) * size)
        gate = None if z is None else z[:, own]
        ours = (u[:, own], delta[:, own], A[own], B[:, g], C[:, g], D[own], gate, delta_bias[own])
        results.append(_scan_group(*ours, with_state))
    if groups == 1:
        return results[0]
    return tuple(torch.cat(parts, dim=1) for parts in zip(*results, strict=True))


def _scan_group(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor | None,
    delta_bias: Tensor,
    with_state: bool,
) -> tuple[Tensor, ...]:
    """(out,) or (out, last_state) of channels that have the same B and C.

    Where nothing is differentiated `continued_scan` tells the state.  Otherwise the outputs of
    `selective_scan` are made to tell it: as many positions as there are states follow the last
    one.  Their time step is 0, so nothing decays and nothing enters, and the C of each is one row
    of the identity, which reads one state.
    """
    u, delta, B, C = (x.transpose(1, 2) for x in (u, delta, B, C))
    z = None if z is None else z.transpose(1, 2)
    if not with_state:
        return (selective_scan(u, delta, A, B, C, D, z, delta_bias).transpose(1, 2),)
    inputs = (u, delta, A, B, C, D, z, delta_bias)
    if not (torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs)):
        out, h = continued_scan(*inputs, None)
        return out.transpose(1, 2), h
    length, state = u.shape[1], A.shape[1]
    further = (0, 0, 0, state)
    u, B, delta = F.pad(u, further), F.pad(B, further), F.pad(delta, further, value=STILL)
    z = None if z is None else F.pad(z, further, value=LOUD)
    reading = torch.eye(state, dtype=C.dtype, device=C.device) / (1 if z is None else LOUD)
    C = torch.cat([C, reading.expand(C.shape[0], state, state)], dim=1)
    out = selective_scan(u, delta, A, B, C, D, z, delta_bias).transpose(1, 2)
    return out.split([length, state], dim=2)


def _scan_definition(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor | None
) -> tuple[Tensor, Tensor]:
    """(out, last_state), step by step; bias and softplus are in delta already."""
    B, C = (_at_each_channel(selection, u) for selection in (B, C))
    h = A.new_zeros(u.shape[0], *A.shape)
    outputs = []
    for t in range(u.shape[2]):
        drive = (delta[:, :, t] * u[:, :, t]).unsqueeze(-1) * B[..., t]
        h = torch.exp(delta[:, :, t].unsqueeze(-1) * A) * h + drive
        outputs.append((h * C[..., t]).sum(-1))
    y = torch.stack(outputs, dim=2) if outputs else torch.zeros_like(u)
    y = (2 * y.real if A.is_complex() else y) + D.unsqueeze(1) * u
    return (y if z is None else y * F.silu(z)), h


def _at_each_channel(selection: Tensor, u: Tensor) -> Tensor:
    """B or C as (1 or batch, 1 or dim, state, length), to be broadcast."""
    _, dim, length = u.shape
    if selection.dim() == 2:
        return selection[None, :, :, None].expand(-1, -1, -1, length)
    groups = selection.shape[1]
    return selection if groups == 1 else selection.repeat_interleave(dim // groups, dim=1)
