"""The selective scan, defined (Gu & Dao 2023, arXiv:2312.00752, section 3.2, algorithm 2).

Delta_t = softplus(delta_t + delta_bias)
h_t     = exp(Delta_t A) h_{t-1} + Delta_t u_t B_t          h_{-1} = 0
y_t     = C_t . h_t + D u_t
out_t   = y_t silu(z_t)                                     or y_t where z is None
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from recall_arena.shapes import Channels, Selection

Transition = Float[Tensor, "channels state"]
PerChannel = Float[Tensor, " channels"]
States = Float[Tensor, "batch channels state"]


def selective_scan_definition(
    u: Channels,
    delta: Channels,
    A: Transition,
    B: Selection,
    C: Selection,
    D: PerChannel,
    z: Channels | None,
    delta_bias: PerChannel,
) -> Channels:
    """One step after another: the equations, transcribed.  Any float type, any device."""
    return continued_scan_definition(u, delta, A, B, C, D, z, delta_bias, no_state(u, A))[0]


def continued_scan_definition(
    u: Channels,
    delta: Channels,
    A: Transition,
    B: Selection,
    C: Selection,
    D: PerChannel,
    z: Channels | None,
    delta_bias: PerChannel,
    h: States,
) -> tuple[Channels, States]:
    """The same from a state on; returns the state after the last position too."""
    states, outputs = scan_states(u, F.softplus(delta + delta_bias), A, B, h), []
    for t, h in enumerate(states):
        outputs.append((h * C[:, t].unsqueeze(1)).sum(-1))
    y = torch.stack(outputs, dim=1) + D * u if outputs else D * u
    return y if z is None else y * F.silu(z), h


def scan_states(
    u: Channels, delta: Channels, A: Transition, B: Selection, h: States
) -> Iterator[States]:
    """The state after each position; delta is Delta here, positive."""
    for t in range(u.shape[1]):
        # Euler rather than zero-order hold for B, as in the authors' code.
        drive = (delta[:, t] * u[:, t]).unsqueeze(-1) * B[:, t].unsqueeze(1)
        h = torch.exp(delta[:, t].unsqueeze(-1) * A) * h + drive
        yield h


def no_state(u: Tensor, A: Tensor) -> Tensor:
    """The state before the first position: (batch, channels, state) zeros."""
    return u.new_zeros(u.shape[0], *A.shape)
