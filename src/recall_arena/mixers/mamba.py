"""Mamba, the selective state-space mixer (Gu & Dao 2023, arXiv:2312.00752).

    h_t = exp(Delta_t A) h_{t-1} + Delta_t B_t u_t      state, eq. (2a)
    y_t = C_t . h_t + D u_t                             readout, eq. (2b)

Delta, B and C depend on the token (section 3.2); A and D do not.  Names follow the paper and
the authors' code, so weights load from one into the other.  Read `forward` beside figure 3.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recall_arena.kernels import (
    causal_conv,
    continued_scan,
    last_selective_scan,
    selective_scan,
)
from recall_arena.mixers.mixer import Mixer, State
from recall_arena.shapes import Channels, Hidden, LastHidden, Selection


class Mamba(Mixer):
    """A gated, causally convolved, input-dependent linear recurrence."""

    continues = True

    def __init__(self, width: int, *, state: int = 16, expand: int = 2, window: int = 4) -> None:
        super().__init__()
        inner = expand * width
        rank = math.ceil(width / 16)

        self.split = [rank, state, state]
        self.in_proj = nn.Linear(width, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, window, groups=inner, padding=window - 1)
        self.x_proj = nn.Linear(inner, sum(self.split), bias=False)
        self.dt_proj = nn.Linear(rank, inner)
        self.A_log = nn.Parameter(torch.arange(1.0, state + 1).log().repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, width, bias=False)
        self._spread_time_steps()

    def forward(self, x: Hidden) -> Hidden:
        u, z = self.in_proj(x).chunk(2, dim=-1)
        u = causal_conv(u, self.conv1d.weight.squeeze(1), self._conv_bias())
        delta, B, C = self._select(u)
        y = selective_scan(u, delta, self._A(), B, C, self.D, z, self.dt_proj.bias)
        return self.out_proj(y)

    def last(self, x: Hidden) -> LastHidden:
        into_u, into_z = self.in_proj.weight.chunk(2)
        u = causal_conv(F.linear(x, into_u), self.conv1d.weight.squeeze(1), self._conv_bias())
        z = F.linear(x[:, -1], into_z)
        delta, B, C = self._select(u)
        y = last_selective_scan(u, delta, self._A(), B, C, self.D, z, self.dt_proj.bias)
        return self.out_proj(y)

    @torch.no_grad()
    def continued(self, x: Hidden, state: State | None) -> tuple[Hidden, State]:
        window, inner = self.conv1d.kernel_size[0], self.conv1d.in_channels
        start = (x.new_zeros(x.shape[0], window - 1, inner), None)
        tail, h = start if state is None else state
        u, z = self.in_proj(x).chunk(2, dim=-1)
        seen = torch.cat([tail, u], dim=1)
        u = causal_conv(seen, self.conv1d.weight.squeeze(1), self._conv_bias())[:, window - 1 :]
        delta, B, C = self._select(u)
        y, h = continued_scan(u, delta, self._A(), B, C, self.D, z, self.dt_proj.bias, h)
        return self.out_proj(y), (seen[:, seen.shape[1] - window + 1 :].clone(), h)

    def state_size(self, context: int) -> int:
        """A state a channel, and the inputs that the convolution still sees; no matter how long."""
        inner, state = self.A_log.shape
        return inner * (state + self.conv1d.kernel_size[0] - 1)

    def _select(self, u: Channels) -> tuple[Channels, Selection, Selection]:
        delta, B, C = self.x_proj(u).split(self.split, dim=-1)
        return F.linear(delta, self.dt_proj.weight), B, C  # dt_proj's bias is added in the scan

    def _A(self) -> Tensor:
        return -self.A_log.exp()

    def _conv_bias(self) -> Tensor:
        assert self.conv1d.bias is not None
        return self.conv1d.bias

    @torch.no_grad()
    def _spread_time_steps(self, shortest: float = 1e-3, longest: float = 1e-1) -> None:
        """Start Delta log-uniform in [shortest, longest] (section 3.6): some channels remember."""
        bias = self.dt_proj.bias
        dt = torch.empty_like(bias).uniform_(math.log(shortest), math.log(longest)).exp()
        bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # the inverse of softplus
        bound = self.dt_proj.in_features**-0.5
        nn.init.uniform_(self.dt_proj.weight, -bound, bound)
