"""Mamba, the selective state-space mixer (Gu & Dao 2023, arXiv:2312.00752).

    h_t = exp(Delta_t A) h_{t-1} + Delta_t B_t u_t      state, eq. (2a)
    y_t = C_t . h_t + D u_t                             readout, eq. (2b)

Delta, B and C depend on the token (section 3.2); A and D do not.  Names follow the paper and
the authors' code, so weights load from one into the other.  `kernels/mamba_mixer.py` has the map
itself, to be read beside figure 3.
"""

import math

import torch
from torch import nn

from recall_arena.kernels import (
    MambaLayer,
    MambaWeights,
    Norm,
    causal_conv,
    continued_scan,
    last_mamba_mixer,
    mamba_mixer,
)
from recall_arena.mixers.mixer import Mixer, State
from recall_arena.shapes import Hidden, LastHidden


class Mamba(Mixer):
    """A gated, causally convolved, input-dependent linear recurrence."""

    continues = True

    def __init__(self, width: int, *, state: int = 16, expand: int = 2, window: int = 4) -> None:
        super().__init__()
        inner = expand * width
        rank = math.ceil(width / 16)

        self.in_proj = nn.Linear(width, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, window, groups=inner, padding=window - 1)
        self.x_proj = nn.Linear(inner, rank + 2 * state, bias=False)
        self.dt_proj = nn.Linear(rank, inner)
        self.A_log = nn.Parameter(torch.arange(1.0, state + 1).log().repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, width, bias=False)
        self._spread_time_steps()

    def forward(self, x: Hidden) -> Hidden:
        return mamba_mixer(x, self._weights())

    def last(self, x: Hidden) -> LastHidden:
        return last_mamba_mixer(x, self._weights())

    def residual(self, x: Hidden, norm: nn.LayerNorm) -> Hidden:
        return mamba_mixer(x, self._weights(), Norm.of(norm))

    def last_residual(self, x: Hidden, norm: nn.LayerNorm) -> LastHidden:
        return last_mamba_mixer(x, self._weights(), Norm.of(norm))

    def layer(self, norm: nn.LayerNorm) -> MambaLayer | None:
        if type(self) is not Mamba:  # a subclass may compute something else
            return None
        return MambaLayer(self._weights(), Norm.of(norm))

    @torch.no_grad()
    def continued(self, x: Hidden, state: State | None) -> tuple[Hidden, State]:
        w = self._weights()
        window, inner = self.conv1d.kernel_size[0], self.conv1d.in_channels
        start = (x.new_zeros(x.shape[0], window - 1, inner), None)
        tail, h = start if state is None else state
        u, z = self.in_proj(x).chunk(2, dim=-1)
        seen = torch.cat([tail, u], dim=1)
        u = causal_conv(seen, w.conv1d.squeeze(1), w.conv_bias)[:, window - 1 :]
        delta, B, C = w.select(u)
        y, h = continued_scan(u, delta, -w.A_log.exp(), B, C, w.D, z, w.dt_bias, h)
        return self.out_proj(y), (seen[:, seen.shape[1] - window + 1 :].clone(), h)

    def state_size(self, context: int) -> int:
        """A state a channel, and the inputs that the convolution still sees; no matter how long."""
        inner, state = self.A_log.shape
        return inner * (state + self.conv1d.kernel_size[0] - 1)

    def _weights(self) -> MambaWeights:
        assert self.conv1d.bias is not None
        return MambaWeights(
            *(self.in_proj.weight, self.conv1d.weight, self.conv1d.bias),
            *(self.x_proj.weight, self.dt_proj.weight),
            *(self.A_log, self.D, self.dt_proj.bias, self.out_proj.weight),
        )

    @torch.no_grad()
    def _spread_time_steps(self, shortest: float = 1e-3, longest: float = 1e-1) -> None:
        """Start Delta log-uniform in [shortest, longest] (section 3.6): some channels remember."""
        bias = self.dt_proj.bias
        dt = torch.empty_like(bias).uniform_(math.log(shortest), math.log(longest)).exp()
        bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # the inverse of softplus
        bound = self.dt_proj.in_features**-0.5
        nn.init.uniform_(self.dt_proj.weight, -bound, bound)
