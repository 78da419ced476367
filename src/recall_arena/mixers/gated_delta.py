"""The gated delta rule (Yang et al. 2024, arXiv:2412.06464), and DeltaNet and KDA by its options.

    S_t = diag(exp(g_t)) S_{t-1} + beta_t k_t (v_t - the value that this holds under k_t)^T
    o_t = S_t^T q_t

`kernels/gated_delta_mixer.py` has the map itself.  A_log, dt_bias, o_norm and the options are those
of flash-linear-attention's layers.  Its projections are one here, in_proj, and its convolutions
one, conv1d, as in transformers' models of this family: a compiled kernel reads each token's
projections as one product, and one weight needs no copy for that.  The rows of in_proj are, in this
order, those of q_proj, k_proj, v_proj, b_proj, a_proj and g_proj.
"""

import math
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from recall_arena.config import frozen
from recall_arena.kernels import (
    GatedDeltaLayer,
    GatedDeltaSizes,
    OutputGate,
    gated_delta,
    gated_delta_mixer_definition,
    mix,
)
from recall_arena.kernels.gated_delta import delta_states, unit
from recall_arena.kernels.gated_delta_mixer import (
    NORM_EPSILON,
    delta_inputs,
    gate_of,
    gated_norm,
    projected,
)
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
from recall_arena.watching import stock, watched

Decay = Literal["none", "head", "channel"]


@frozen
class GatedDelta(MixerOptions):
    """The options of the gated delta rule; the defaults are Gated DeltaNet's.

    KDA has W_2 W_1 x in the place of W x for its decays and its gate: a W of a low rank.

    Attributes:
        heads: of queries, keys and values; they divide the width
        key_width: numbers of a head's key; width / heads if None
        expand: a value's numbers, as a multiple of its key's
        window: positions that the convolution of q, k and v sees; 1 for no convolution
        decay: "head": Gated DeltaNet's; "channel": KDA's; "none": DeltaNet's
        negative_eigenvalues: whether beta lies in (0, 2), arXiv:2411.12537, instead of (0, 1)
        gate: of the output: "silu", KDA's "sigmoid", or "none"

    Raises:
        ValueError: for heads, a key_width, an expansion or a window below 1
    """

    heads: int = 1
    key_width: int | None = None
    expand: int = 2
    window: int = 4
    decay: Decay = "head"
    negative_eigenvalues: bool = False
    gate: OutputGate = "silu"

    def __post_init__(self) -> None:
        check_positive(self, "heads", "expand", "window")
        if self.key_width is not None:
            check_positive(self, "key_width")

    def check(self, width: int) -> None:
        super().check(width)
        if self.key_width is None and width % self.heads:
            raise ValueError(f"heads must divide the width {width}, got {self.heads}")

    def build(self, width: int) -> "GatedDeltaMixer":
        self.check(width)
        return GatedDeltaMixer(width, self)


class GatedDeltaMixer(Mixer):
    """A state of values under keys, which fades, and which each token corrects."""

    def __init__(self, width: int, options: GatedDelta) -> None:
        super().__init__()
        heads, decay = options.heads, options.decay
        keys = width // heads if options.key_width is None else options.key_width
        value_width = options.expand * keys
        scale = 2.0 if options.negative_eigenvalues else 1.0
        by_channel = decay == "channel"
        self.sizes = GatedDeltaSizes(heads, keys, value_width, by_channel, scale, options.gate)
        columns = self.sizes.columns(decays=decay != "none")
        channels, values = sum(columns[:3]), columns[2]

        self.in_proj = nn.Linear(width, sum(columns), bias=False)
        self.conv1d = convolution(channels, options.window, bias=False)
        self.A_log: nn.Parameter | None = None
        self.dt_bias: nn.Parameter | None = None
        if decay != "none":
            self._make_decays(columns[4])
        self.o_norm = nn.RMSNorm(value_width, eps=NORM_EPSILON)
        self.out_proj = nn.Linear(values, width, bias=False)
        self.mark()

    def mark(self) -> None:
        no_weight_decay(self.A_log, self.dt_bias)
        no_reinit(self.A_log, self.dt_bias)

    def forward(self, x: Hidden, last: bool = False) -> ReadHidden:
        layer = self.layer()
        if layer is not None:
            return mix(layer, x, last=last)
        return gated_delta_mixer_definition(
            *(x, self.in_proj, partial(convolved, self.conv1d), self.A_log, self.dt_bias),
            *(self.o_norm, self.out_proj, self.sizes),
            last=last,
        )

    @property
    def continues(self) -> bool:
        """Where it is known how far the convolution sees."""
        return isinstance(self.conv1d, nn.Conv1d | None)

    def layer(self) -> GatedDeltaLayer | None:
        if type(self) is not GatedDeltaMixer or not self._stock() or watched(self.children()):
            return None
        conv = None if self.conv1d is None else self.conv1d.weight
        return GatedDeltaLayer(
            *(self.in_proj.weight, conv, self.A_log, self.dt_bias),
            *(self.o_norm.weight, self.out_proj.weight, self.sizes),
        )

    def continued(self, x: Hidden, state: State | None) -> tuple[Hidden, State]:
        """The state: inputs that the convolution still sees, (batch, window - 1, channels), and S
        (batch, heads, key_width, value_width)."""
        tail, S = (None, None) if state is None else state
        layer, sizes = self.layer(), self.sizes
        conv = partial(convolved, self.conv1d) if layer is None else layer.convolved
        mixed, b, a, z = projected(x, self.in_proj, sizes, self.A_log is not None)
        qkv, tail = carried(conv, mixed, tail, window_of(self.conv1d))
        inputs = delta_inputs(qkv, b, a, self.A_log, self.dt_bias, sizes)
        o, S = gated_delta(*inputs, S, normalised=True)
        return self.out_proj(gated_norm(o, z, self.o_norm, sizes.gate)), (tail, S)

    def inspected(self, x: Hidden) -> dict[str, Tensor]:
        """q, k (batch, length, heads, key_width), of length 1 and q scaled, v; g, if anything
        decays; beta; states S (batch, length, heads, key_width, value_width); gate, of the normed
        S^T q before out_proj, if there is one."""
        sizes = self.sizes
        mixed, b, a, z = projected(x, self.in_proj, sizes, self.A_log is not None)
        qkv = convolved(self.conv1d, mixed)
        q, k, v, g, beta = delta_inputs(qkv, b, a, self.A_log, self.dt_bias, sizes)
        q, k, gate = unit(q) * sizes.key_width**-0.5, unit(k), gate_of(z, sizes.gate)
        states = torch.stack(list(delta_states(k, v, g, beta)), dim=1)
        found = {"q": q, "k": k, "v": v, "g": g, "beta": beta, "states": states, "gate": gate}
        return {name: tensor for name, tensor in found.items() if tensor is not None}

    def state_size(self, context: int) -> int:
        """Each head's state, and the inputs that the convolution still sees; no matter how long."""
        sizes, value_width = self.sizes, self.sizes.value_width
        channels = sizes.heads * (2 * sizes.key_width + value_width)
        return sizes.heads * sizes.key_width * value_width + (window_of(self.conv1d) - 1) * channels

    def _stock(self) -> bool:
        """Whether each part is of the kind that was built, with the weights that it had."""
        plain = all(stock(each, nn.Linear, "weight") for each in (self.in_proj, self.out_proj))
        plain = plain and stock(self.o_norm, nn.RMSNorm, "weight")
        plain = plain and self.o_norm.eps == NORM_EPSILON
        return plain and stock_convolution(self.conv1d, "weight")

    def _make_decays(self, numbers: int, shortest: float = 1e-3, longest: float = 1e-1) -> None:
        """A uniform in [0, 16] and softplus(dt_bias) log-uniform in [shortest, longest].

        So flash-linear-attention's GatedDeltaNet starts, whose A may be 0; here it is above 0.
        """
        A = torch.empty(self.sizes.heads).uniform_(0, 16).clamp(min=1e-4)
        dt = torch.empty(numbers).uniform_(math.log(shortest), math.log(longest)).exp()
        self.A_log = nn.Parameter(A.log())
        self.dt_bias = nn.Parameter(dt + torch.log(-torch.expm1(-dt)))  # the inverse of softplus
