"""mamba-ssm's Mamba block after its first projection (arXiv:2312.00752, figure 3) on a CPU."""

import torch
from torch import Tensor
from torch.nn import functional as F

from recall_arena.compat.checks import check_shapes
from recall_arena.compat.conv import causal_conv1d_fn
from recall_arena.compat.scan import selective_scan_fn


def mamba_inner_fn(
    xz: Tensor,
    conv1d_weight: Tensor,
    conv1d_bias: Tensor | None,
    x_proj_weight: Tensor,
    delta_proj_weight: Tensor,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    A: Tensor,
    B: Tensor | None = None,
    C: Tensor | None = None,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    B_proj_bias: Tensor | None = None,
    C_proj_bias: Tensor | None = None,
    delta_softplus: bool = True,
    checkpoint_lvl: int = 1,
    b_rms_weight: Tensor | None = None,
    c_rms_weight: Tensor | None = None,
    dt_rms_weight: Tensor | None = None,
    b_c_dt_rms_eps: float = 1e-6,
) -> Tensor:
    """mamba-ssm's `mamba_inner_fn`: convolution, scan and projections; (batch, length, out).

    xz (batch, 2 dim, length); conv1d_weight (dim, 1, width); conv1d_bias (dim,); x_proj_weight
    (rank + states of B and of C, dim); delta_proj_weight (dim, rank); out_proj_weight (out, dim);
    out_proj_bias (out,).  A, B, C, D, delta_bias, delta_softplus as in `selective_scan_fn`.
    Where B or C is None each token chooses it: state numbers, or with a complex A state pairs of
    numbers, from x_proj, to which B_proj_bias and C_proj_bias are added.  b_rms_weight and
    c_rms_weight (state,) and dt_rms_weight (dim,) ask for RMSNorm of a chosen B, C (not with a
    complex A), and of delta after its projection.

    All weights have gradients, in mamba-ssm those of B's, C's and delta's norms have none.
    checkpoint_lvl, which trades memory against time there, changes nothing.  Raises ValueError
    if the shapes do not fit together, and for a bias or norm of a B or C that x_proj does not
    make.
    """
    if checkpoint_lvl not in (0, 1):
        raise ValueError(f"checkpoint_lvl must be 0 or 1, got {checkpoint_lvl!r}")
    rank, numbers = delta_proj_weight.shape[-1], A.shape[-1] * (2 if A.is_complex() else 1)
    rows = [rank, (B is None) * numbers, (C is None) * numbers]
    _check(xz, conv1d_weight, x_proj_weight, delta_proj_weight, out_proj_weight, A, rows)
    x, z = xz.chunk(2, dim=1)
    u = causal_conv1d_fn(x, conv1d_weight.squeeze(1), conv1d_bias, activation="silu")
    assert isinstance(u, Tensor)
    projected = F.linear(u.transpose(1, 2), x_proj_weight)
    delta = F.linear(projected[..., :rank], delta_proj_weight)
    delta = _rms_norm(delta, dt_rms_weight, b_c_dt_rms_eps).transpose(1, 2)
    _, for_B, for_C = projected.split(rows, dim=-1)
    B = _selection("B", B, for_B, A, B_proj_bias, b_rms_weight, b_c_dt_rms_eps)
    C = _selection("C", C, for_C, A, C_proj_bias, c_rms_weight, b_c_dt_rms_eps)
    y = selective_scan_fn(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
    assert isinstance(y, Tensor)
    return F.linear(y.transpose(1, 2), out_proj_weight, out_proj_bias)


def _check(
    xz: Tensor,
    conv1d_weight: Tensor,
    x_proj_weight: Tensor,
    delta_proj_weight: Tensor,
    out_proj_weight: Tensor,
    A: Tensor,
    rows: list[int],
) -> None:
    """Raise ValueError unless the shapes fit together; rows, those of x_proj for delta, B and C."""
    given = {"xz": xz, "conv1d_weight": conv1d_weight, "x_proj_weight": x_proj_weight}
    given |= {"delta_proj_weight": delta_proj_weight, "out_proj_weight": out_proj_weight, "A": A}
    dim = A.shape[0]
    fit = xz.dim() == conv1d_weight.dim() == 3 and xz.shape[1] == 2 * dim
    fit = fit and conv1d_weight.shape[:2] == (dim, 1)
    fit = fit and delta_proj_weight.shape == (dim, rows[0])
    fit = fit and x_proj_weight.shape == (sum(rows), dim)
    check_shapes(
        fit and out_proj_weight.shape[1:] == (dim,),
        "xz must be (batch, 2 dim, length), conv1d_weight (dim, 1, width), x_proj_weight "
        f"({' + '.join(map(str, rows))} for delta, B and C, dim), delta_proj_weight (dim, rank), "
        "out_proj_weight (out, dim), A (dim, state)",
        given,
    )


def _selection(
    name: str,
    constant: Tensor | None,
    projected: Tensor,
    A: Tensor,
    bias: Tensor | None,
    norm: Tensor | None,
    epsilon: float,
) -> Tensor:
    """B or C as `selective_scan_fn` takes it: the constant one, or what each token chooses.

    projected (batch, length, numbers); the result (dim, state), or (batch, state, length), twice
    as long with a complex A.
    """
    if constant is not None and (bias is not None or norm is not None):
        raise ValueError(f"{name} is given, so there is no bias or norm of a chosen {name}")
    if norm is not None and A.is_complex():
        raise ValueError(f"the norm of {name} needs a real A, got {A.dtype}")
    if constant is not None:
        return constant
    chosen = projected if bias is None else projected + bias.to(projected.dtype)
    chosen = _rms_norm(chosen, norm, epsilon)
    if not A.is_complex():
        return chosen.transpose(1, 2)
    return chosen.unflatten(-1, (A.shape[1], 2)).transpose(1, 2).flatten(2)


def _rms_norm(x: Tensor, weight: Tensor | None, epsilon: float) -> Tensor:
    """RMSNorm over the last axis, in float32 or float64, in x's type; x itself without a weight."""
    if weight is None:
        return x
    real = torch.promote_types(x.dtype, torch.float32)
    return F.rms_norm(x.to(real), weight.shape, weight.to(real), epsilon).to(x.dtype)
