"""mamba-ssm's step of the selective scan by one token, for generation."""

import torch
from torch import Tensor
from torch.nn import functional as F

from recall_arena.compat.types import working_type


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
) -> Tensor:
    """mamba-ssm's `selective_state_update`: one step of the scan, for generation; (batch, dim).

    state (batch, dim, state) is overwritten; x, dt, z (batch, dim); A (dim, state), real; B, C
    (batch, state); D, dt_bias (dim,).  Raises NotImplementedError for Mamba-2's heads (a state
    of four axes) and ValueError if the shapes do not fit together.
    """
    if state.dim() == 4:
        raise NotImplementedError("a state with heads (Mamba-2) is not supported")
    (batch, dim, states), real = state.shape, working_type(x)
    inner = all(tensor is None or tensor.shape == (batch, dim) for tensor in (x, dt, z))
    constants = all(tensor is None or tensor.shape == (dim,) for tensor in (D, dt_bias))
    if not (inner and constants and A.shape == (dim, states) and B.shape == C.shape):
        raise ValueError("x, dt, z must be (batch, dim), A (dim, state), D, dt_bias (dim,)")
    if B.shape != (batch, states):
        raise ValueError(f"B, C must be (batch, state); got {tuple(B.shape)}")
    dt = dt.to(real) if dt_bias is None else dt.to(real) + dt_bias.to(real)
    dt = F.softplus(dt) if dt_softplus else dt
    drive = (dt * x.to(real)).unsqueeze(-1) * B.to(real).unsqueeze(1)
    h = torch.exp(dt.unsqueeze(-1) * A.to(real)) * state.to(real) + drive
    state.copy_(h)
    y = (h * C.to(real).unsqueeze(1)).sum(-1)
    y = y if D is None else y + D.to(real) * x.to(real)
    return (y if z is None else y * F.silu(z.to(real))).to(x.dtype)
