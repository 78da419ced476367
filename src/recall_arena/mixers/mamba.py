"""Mamba, the selective state-space mixer (Gu & Dao 2023, arXiv:2312.00752).

    h_t = exp(Delta_t A) h_{t-1} + Delta_t B_t u_t      state, eq. (2a)
    y_t = C_t . h_t + D u_t                             readout, eq. (2b)

Delta, B and C depend on the token (section 3.2); A and D do not.  Names follow the paper and
the authors' code, so weights load from one into the other.  `kernels/mamba_mixer.py` has the map
itself, to be read beside figure 3.
"""

import math
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recall_arena.config import frozen
from recall_arena.kernels import (
    MambaLayer,
    continued_scan,
    mamba_mixer_definition,
    mix,
)
from recall_arena.kernels.layer import Map
from recall_arena.kernels.mamba_mixer import scan_inputs
from recall_arena.kernels.scan_definition import no_state, scan_states
from recall_arena.marks import no_reinit, no_weight_decay
from recall_arena.mixers.convolution import (
    carried,
    convolution,
    convolved,
    stock_convolution,
    window_of,
)
from recall_arena.mixers.mixer import Mixer, MixerOptions, State, check_positive
from recall_arena.shapes import Hidden, ReadHidden
from recall_arena.watching import bias_of, stock, watched


@frozen
class Mamba(MixerOptions):
    """The options of Mamba; the defaults are the paper's.

    Attributes:
        state: N, numbers that each channel remembers
        expand: channels, as a multiple of the width
        window: positions that the convolution sees; 1 for no convolution
        rank: of the map from a token to its time steps; ceil(width / 16) if None
        bias: whether in_proj and out_proj have biases
        conv_bias: whether the convolution has one
        A_log_offset: added to A_log at the start: with log 2 states decay twice as fast
        dt_offset: added to the time steps' biases at the start, before their softplus

    Raises:
        ValueError: for a state, expansion, window or rank below 1
    """

    state: int = 16
    expand: int = 2
    window: int = 4
    rank: int | None = None
    bias: bool = False
    conv_bias: bool = True
    A_log_offset: float = 0.0
    dt_offset: float = 0.0

    def __post_init__(self) -> None:
        check_positive(self, "state", "expand", "window")
        if self.rank is not None:
            check_positive(self, "rank")

    def build(self, width: int) -> "MambaMixer":
        self.check(width)
        return MambaMixer(width, self)


def usual_rank(width: int) -> int:
    """Of the map to time steps, where no other is wanted."""
    return math.ceil(width / 16)


class MambaMixer(Mixer):
    """A gated, causally convolved, input-dependent linear recurrence."""

    def __init__(self, width: int, options: Mamba) -> None:
        super().__init__()
        inner, state = options.expand * width, options.state
        rank = usual_rank(width) if options.rank is None else options.rank

        self.in_proj = nn.Linear(width, 2 * inner, bias=options.bias)
        self.conv1d = convolution(inner, options.window, bias=options.conv_bias)
        self.x_proj = nn.Linear(inner, rank + 2 * state, bias=False)
        self.dt_proj = nn.Linear(rank, inner)
        A_log = torch.arange(1.0, state + 1).log() + options.A_log_offset
        self.A_log = nn.Parameter(A_log.repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, width, bias=options.bias)
        self._spread_time_steps(options.dt_offset)
        self.mark()

    def mark(self) -> None:
        no_reinit(getattr(self.dt_proj, "bias", None))
        no_weight_decay(self.A_log, self.D)

    def forward(self, x: Hidden, last: bool = False) -> ReadHidden:
        layer = self.layer()
        if layer is not None:
            return mix(layer, x, last=last)
        conv, dt_proj, dt_bias = self._convolution_and_time_step()
        return mamba_mixer_definition(
            *(x, self.in_proj, conv, self.x_proj, dt_proj),
            *(self.A_log, self.D, dt_bias, self.out_proj),
            last=last,
        )

    @property
    def continues(self) -> bool:
        """Where it is known how far the convolution sees."""
        return isinstance(self.conv1d, nn.Conv1d | None)

    def layer(self) -> MambaLayer | None:
        if type(self) is not MambaMixer or not self._stock() or watched(self.children()):
            return None
        conv = self.conv1d
        return MambaLayer(
            self.in_proj.weight,
            self.in_proj.bias,
            None if conv is None else conv.weight,
            None if conv is None else conv.bias,
            *(self.x_proj.weight, self.dt_proj.weight),
            *(self.A_log, self.D, self.dt_proj.bias),
            *(self.out_proj.weight, self.out_proj.bias),
        )

    def continued(self, x: Hidden, state: State | None) -> tuple[Hidden, State]:
        """The state: inputs that the convolution still sees, (batch, window - 1, channels), and h
        (batch, channels, state).  With gradients the scan is its definition, which is slow."""
        tail, h = (None, None) if state is None else state
        conv, dt_proj, dt_bias = self._convolution_and_time_step()
        u, z = self.in_proj(x).chunk(2, dim=-1)
        u, tail = carried(conv, u, tail, window_of(self.conv1d))
        inputs = scan_inputs(u, self.x_proj, dt_proj, self.A_log)
        y, h = continued_scan(u, *inputs, self.D, z, dt_bias, h)
        return self.out_proj(y), (tail, h)

    def inspected(self, x: Hidden) -> dict[str, Tensor]:
        """Delta (batch, length, channels), positive; A, B, C, D; u, the scan's input; the states h
        (batch, length, channels, state); gate, of (C . h + D u) before out_proj."""
        conv, dt_proj, dt_bias = self._convolution_and_time_step()
        u, z = self.in_proj(x).chunk(2, dim=-1)
        u = conv(u)
        delta, A, B, C = scan_inputs(u, self.x_proj, dt_proj, self.A_log)
        delta = F.softplus(delta + dt_bias)
        states = torch.stack(list(scan_states(u, delta, A, B, no_state(u, A))), dim=1)
        found = {"Delta": delta, "A": A, "B": B, "C": C, "D": self.D}
        return {**found, "u": u, "states": states, "gate": F.silu(z)}

    def _convolution_and_time_step(self) -> tuple[Map, Map, Tensor]:
        """The convolution with its SiLU, dt_proj and the bias that is added to what it gives."""
        layer = self.layer()
        if layer is None:  # dt_proj adds its bias itself
            return partial(convolved, self.conv1d), self.dt_proj, torch.zeros_like(self.D)
        return layer.convolved, partial(F.linear, weight=layer.dt_proj), layer.dt_bias

    def state_size(self, context: int) -> int:
        """A state a channel, and the inputs that the convolution still sees; no matter how long."""
        inner, state = self.A_log.shape
        return inner * (state + window_of(self.conv1d) - 1)

    def _stock(self) -> bool:
        """Whether each part is of the kind that the kernel knows, with the weights that it had."""
        projections = (self.in_proj, self.out_proj)
        plain = all(stock(p, nn.Linear, "weight", *bias_of(p)) for p in projections)
        plain = plain and stock(self.x_proj, nn.Linear, "weight")
        plain = plain and stock(self.dt_proj, nn.Linear, "weight", "bias")
        return plain and stock_convolution(self.conv1d, "weight", *bias_of(self.conv1d))

    @torch.no_grad()
    def _spread_time_steps(
        self, offset: float, shortest: float = 1e-3, longest: float = 1e-1
    ) -> None:
        """Start Delta log-uniform in [shortest, longest] (section 3.6): some channels remember."""
        bias = self.dt_proj.bias
        dt = torch.empty_like(bias).uniform_(math.log(shortest), math.log(longest)).exp()
        bias.copy_(dt + torch.log(-torch.expm1(-dt)) + offset)  # the inverse of softplus
        bound = self.dt_proj.in_features**-0.5
        nn.init.uniform_(self.dt_proj.weight, -bound, bound)
