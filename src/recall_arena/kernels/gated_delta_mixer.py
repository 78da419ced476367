"""The mixers of the gated delta rule: DeltaNet, Gated DeltaNet and KDA by its switches.

    q, k, v, b, a, z = in_proj x                     q, k, v = silu(conv1d(q, k, v))
    beta = sigmoid(b), or 2 sigmoid(b)               g = -exp(A_log) softplus(a + dt_bias)
    o    = gated_delta(q, k, v, g, beta)             out = out_proj(norm(o) silu(z))

`gated_delta_mixer_definition` says what this means; `GatedDeltaLayer` is what the compiled kernel
is given.  The equations are those of arXiv:2412.06464, section 3.4; arXiv:2406.06484 has no a,
arXiv:2510.26692 one for each channel of the keys, and a sigmoid of z.
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from recall_arena.kernels import native, structs
from recall_arena.kernels.causal_conv import causal_conv
from recall_arena.kernels.gated_delta import gated_delta, kept_states
from recall_arena.kernels.layer import Layer, Map, Shape, head
from recall_arena.shapes import Channels, Hidden, ReadHidden

OutputGate = Literal["none", "silu", "sigmoid"]
OUTPUT_GATES: tuple[OutputGate, ...] = ("none", "silu", "sigmoid")
"""In the order of the numbers by which the library knows them."""

NORM_EPSILON = 1e-5


@dataclass(frozen=True)
class GatedDeltaSizes:
    """What the weights' shapes do not tell.

    heads        heads of queries, keys and values
    key_width    numbers of a query or a key
    value_width  numbers of a value
    by_channel   whether each channel of the keys has a decay of its own, where there are decays
    beta_scale   1, or 2 where a transition may have negative eigenvalues (arXiv:2411.12537)
    gate         what gates the output
    """

    heads: int
    key_width: int
    value_width: int
    by_channel: bool = False
    beta_scale: float = 1.0
    gate: OutputGate = "silu"

    def columns(self, *, decays: bool) -> list[int]:
        """How many numbers of in_proj x are q, k, v, b, a and z."""
        keys, values = self.heads * self.key_width, self.heads * self.value_width
        each = keys if self.by_channel else self.heads
        gate = 0 if self.gate == "none" else values
        return [keys, keys, values, self.heads, each if decays else 0, gate]


def gated_delta_mixer_definition(
    x: Hidden,
    in_proj: Map,
    conv: Map,
    A_log: Float[Tensor, " heads"] | None,
    dt_bias: Float[Tensor, " decays"] | None,
    o_norm: Map,
    out_proj: Map,
    sizes: GatedDeltaSizes,
    *,
    last: bool = False,
) -> ReadHidden:
    """The equations, one line each.  Any float type, any device.

    The projections, `conv`, the convolution with its SiLU, and the norm of each head's output are
    functions, so that modules serve as well as weights.  Without A_log and dt_bias nothing decays.
    """
    mixed, b, a, z = projected(x, in_proj, sizes, A_log is not None)
    q, k, v, g, beta = delta_inputs(conv(mixed), b, a, A_log, dt_bias, sizes)
    o, _ = gated_delta(q, k, v, g, beta, normalised=True)
    if last:
        o, z = o[:, -1:], z[:, -1:]
    return out_proj(gated_norm(o, z, o_norm, sizes.gate))


def projected(x: Hidden, in_proj: Map, sizes: GatedDeltaSizes, decays: bool) -> tuple[Tensor, ...]:
    """in_proj x in four: q, k and v side by side, b, a and z."""
    columns = sizes.columns(decays=decays)
    return in_proj(x).split([sum(columns[:3]), *columns[3:]], dim=-1)


def delta_inputs(
    qkv: Channels,
    b: Tensor,
    a: Tensor,
    A_log: Tensor | None,
    dt_bias: Tensor | None,
    sizes: GatedDeltaSizes,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor]:
    """q, k, v, g, beta of `gated_delta` from a mixer's projections."""
    heads, key_width = sizes.heads, sizes.key_width
    values = qkv.shape[2] - 2 * heads * key_width
    widths = [key_width, key_width, values // heads]
    parts = qkv.split([heads * width for width in widths], dim=2)
    q, k, v = (x.unflatten(2, (heads, width)) for x, width in zip(parts, widths, strict=True))
    beta = sizes.beta_scale * torch.sigmoid(b)
    if A_log is None or dt_bias is None:
        return q, k, v, None, beta
    rate = F.softplus(a + dt_bias)
    if not sizes.by_channel:
        return q, k, v, -A_log.exp() * rate, beta
    return q, k, v, -A_log.exp().unsqueeze(1) * rate.unflatten(2, (heads, key_width)), beta


def gated_norm(o: Tensor, z: Tensor, norm: Map, gate: OutputGate) -> Tensor:
    """Each head's output, normed and gated; (batch, length, heads * value_width)."""
    normed = norm(o).flatten(2)
    opened = gate_of(z, gate)
    return normed if opened is None else normed * opened


def gate_of(z: Tensor, gate: OutputGate) -> Tensor | None:
    """What an output is multiplied by, if there is a gate."""
    match gate:
        case "none":
            return None
        case "silu":
            return F.silu(z)
        case "sigmoid":
            return torch.sigmoid(z)


@dataclass(frozen=True)
class GatedDeltaLayer(Layer):
    """The mixer's weights: in_proj has the rows of q, k, v, b, a and z, in this order.

    conv1d convolves q, k and v; None for none.  A_log and dt_bias are None where nothing decays.
    """

    KIND = structs.Kind.GATED_DELTA
    TRANSPOSED = frozenset({"conv1d"})

    in_proj: Float[Tensor, "columns width"]
    conv1d: Float[Tensor, "channels 1 window"] | None
    A_log: Float[Tensor, " heads"] | None
    dt_bias: Float[Tensor, " decays"] | None
    o_norm: Float[Tensor, " value_width"]
    out_proj: Float[Tensor, "width values"]
    sizes: GatedDeltaSizes

    def check(self, width: int) -> None:
        sizes, decays = self.sizes, self.A_log is not None
        columns = sizes.columns(decays=decays)
        window = 1 if self.conv1d is None else self.conv1d.shape[2]
        expected = {
            "in_proj": (sum(columns), width),
            "conv1d": (sum(columns[:3]), 1, window),
            "A_log": (sizes.heads,),
            "dt_bias": (columns[4],),
            "o_norm": (sizes.value_width,),
            "out_proj": (width, columns[2]),
        }
        if decays != (self.dt_bias is not None):
            raise ValueError("A_log and dt_bias come together, or not at all")
        for name, weight in self.named_weights().items():
            if weight.shape != expected[name]:
                raise ValueError(
                    f"{name} must be {expected[name]} where the width is {width}, with {sizes}; "
                    f"got {tuple(weight.shape)}"
                )

    def has_room(self, length: int) -> bool:
        return self.conv1d is None or self.conv1d.shape[2] <= native.LARGEST_WINDOW

    def definition(self, x: Hidden, *, last: bool) -> ReadHidden:
        return gated_delta_mixer_definition(
            x,
            partial(F.linear, weight=self.in_proj),
            self.convolved,
            *(self.A_log, self.dt_bias, self.normed),
            partial(F.linear, weight=self.out_proj),
            self.sizes,
            last=last,
        )

    def convolved(self, mixed: Channels) -> Channels:
        """q, k and v as the rule takes them."""
        if self.conv1d is None:
            return F.silu(mixed)
        return causal_conv(mixed, self.conv1d.squeeze(1))

    def normed(self, o: Tensor) -> Tensor:
        """Each head's output over its root mean square."""
        return F.rms_norm(o, self.o_norm.shape, eps=NORM_EPSILON) * self.o_norm

    def saved(self, shape: Shape) -> dict[str, tuple[int, ...]]:
        batch, length, sizes = shape.batch, shape.length, self.sizes
        columns = sizes.columns(decays=self.A_log is not None)
        channels, values = sum(columns[:3]), columns[2]
        by_channel = sizes.by_channel and self.A_log is not None
        chunks = kept_states(length, sizes.key_width, by_channel=by_channel)
        gate = {"z": (batch, shape.read, values)} if columns[5] else {}
        return {
            "before": (batch, length, channels),
            "qkv": (batch, length, channels),
            "gates": (batch, length, columns[3] + columns[4]),
            **gate,
            "o": (batch, shape.read, values),
            "states": (batch, chunks, sizes.key_width, values),
            "errors": (batch, length, values),
        }

    def arguments(self, shape: Shape) -> tuple[structs.GatedDelta, None]:
        sizes, conv = self.sizes, self.conv1d
        call = structs.GatedDelta(
            block=head(self, shape, self.in_proj, self.out_proj),
            heads=sizes.heads,
            key_width=sizes.key_width,
            value_width=sizes.value_width,
            window=0 if conv is None else conv.shape[2],
            decays=0 if self.dt_bias is None else len(self.dt_bias),
            gate=OUTPUT_GATES.index(sizes.gate),
            beta_scale=sizes.beta_scale,
            epsilon=NORM_EPSILON,
            conv_weight=native.address(conv),
            A_log=native.address(self.A_log),
            dt_bias=native.address(self.dt_bias),
            o_norm=self.o_norm.data_ptr(),
        )
        return call, None

    def work(self, shape: Shape) -> int:
        values = self.out_proj.shape[1]
        return shape.batch * shape.length * values * max(1, self.sizes.key_width // 8)
