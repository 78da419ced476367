"""Mamba's mixer from end to end (Gu & Dao 2023, arXiv:2312.00752, figure 3).

    u, z        = in_proj x
    u           = silu(conv1d u)
    delta, B, C = x_proj u
    out         = out_proj(scan(u, dt_proj delta, -exp(A_log), B, C, D) silu(z))

`mamba_mixer_definition` says what this means; `MambaLayer` is what the compiled kernel is given.
"""

from dataclasses import dataclass
from functools import partial

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from recall_arena.kernels import native, structs
from recall_arena.kernels.causal_conv import causal_conv
from recall_arena.kernels.layer import Layer, Map, Shape, head
from recall_arena.kernels.selective_scan import selective_scan
from recall_arena.shapes import Channels, Hidden, ReadHidden, Selection

PerChannel = Float[Tensor, " channels"]


def mamba_mixer_definition(
    x: Hidden,
    in_proj: Map,
    conv: Map,
    x_proj: Map,
    dt_proj: Map,
    A_log: Float[Tensor, "channels state"],
    D: PerChannel,
    dt_bias: PerChannel,
    out_proj: Map,
    *,
    last: bool = False,
) -> ReadHidden:
    """The figure, one line a box.  Any float type, any device.

    The projections and `conv`, the convolution with its SiLU, are functions, so that modules
    serve as well as weights; `dt_bias` is added to what dt_proj gives.
    """
    u, z = in_proj(x).chunk(2, dim=-1)
    u = conv(u)
    y = selective_scan(u, *scan_inputs(u, x_proj, dt_proj, A_log), D, z, dt_bias)
    return out_proj(y[:, -1:] if last else y)


def scan_inputs(
    u: Channels, x_proj: Map, dt_proj: Map, A_log: Tensor
) -> tuple[Channels, Tensor, Selection, Selection]:
    """delta, A, B and C of `selective_scan`."""
    state, selected = A_log.shape[1], x_proj(u)
    delta, B, C = selected.split([selected.shape[2] - 2 * state, state, state], dim=-1)
    return dt_proj(delta), -A_log.exp(), B, C


@dataclass(frozen=True)
class MambaLayer(Layer):
    """The mixer's weights, as torch's modules and the authors' code lay them out.

    Biases that are not there are None, and so is conv1d where nothing is convolved.
    """

    KIND = structs.Kind.MAMBA
    TRANSPOSED = frozenset({"conv1d", "dt_proj", "A_log"})

    in_proj: Float[Tensor, "twice_channels width"]
    in_bias: Float[Tensor, " twice_channels"] | None
    conv1d: Float[Tensor, "channels 1 window"] | None
    conv_bias: PerChannel | None
    x_proj: Float[Tensor, "selected channels"]
    dt_proj: Float[Tensor, "channels rank"]
    A_log: Float[Tensor, "channels state"]
    D: PerChannel
    dt_bias: PerChannel
    out_proj: Float[Tensor, "width channels"]
    out_bias: Float[Tensor, " width"] | None

    def check(self, width: int) -> None:
        (channels, state), rank = self.A_log.shape, self.dt_proj.shape[1]
        expected = {
            "in_proj": (2 * channels, width),
            "in_bias": (2 * channels,),
            "conv1d": (channels, 1, self._window),
            "conv_bias": (channels,),
            "x_proj": (rank + 2 * state, channels),
            "dt_proj": (channels, rank),
            "A_log": (channels, state),
            "D": (channels,),
            "dt_bias": (channels,),
            "out_proj": (width, channels),
            "out_bias": (width,),
        }
        if self.conv1d is None and self.conv_bias is not None:
            raise ValueError("there is a conv_bias without a conv1d")
        for name, weight in self.named_weights().items():
            if weight.shape != expected[name]:
                raise ValueError(
                    f"{name} must be {expected[name]} where the width is {width}, A_log "
                    f"{(channels, state)} and dt_proj {tuple(self.dt_proj.shape)}; "
                    f"got {tuple(weight.shape)}"
                )

    @property
    def _window(self) -> int:
        return 0 if self.conv1d is None else self.conv1d.shape[2]

    def has_room(self, length: int) -> bool:
        return self.A_log.shape[1] <= native.LARGEST_STATE and self._window <= native.LARGEST_WINDOW

    def definition(self, x: Hidden, *, last: bool) -> ReadHidden:
        return mamba_mixer_definition(
            x,
            partial(F.linear, weight=self.in_proj, bias=self.in_bias),
            self.convolved,
            partial(F.linear, weight=self.x_proj),
            partial(F.linear, weight=self.dt_proj),
            *(self.A_log, self.D, self.dt_bias),
            partial(F.linear, weight=self.out_proj, bias=self.out_bias),
            last=last,
        )

    def convolved(self, u: Channels) -> Channels:
        """u as the scan takes it."""
        if self.conv1d is None:
            return F.silu(u)
        return causal_conv(u, self.conv1d.squeeze(1), self.conv_bias)

    def saved(self, shape: Shape) -> dict[str, tuple[int, ...]]:
        batch, length = shape.batch, shape.length
        selected, channels = self.x_proj.shape
        chunks = -(-length // native.SCAN_CHUNK)
        return {
            "before": (batch, length, channels),
            "z": (batch, shape.read, channels),
            "u": (batch, length, channels),
            "selection": (batch, length, selected),
            "states": (batch, chunks, self.A_log.shape[1], channels),
        }

    def arguments(self, shape: Shape) -> tuple[structs.Mamba, None]:
        channels, state = self.A_log.shape
        call = structs.Mamba(
            block=head(self, shape, self.in_proj, self.out_proj, self.in_bias, self.out_bias),
            channels=channels,
            state=state,
            window=self._window,
            rank=self.dt_proj.shape[1],
            x_proj=self.x_proj.data_ptr(),
            dt_weight=self.dt_proj.data_ptr(),
            dt_bias=self.dt_bias.data_ptr(),
            A_log=self.A_log.data_ptr(),
            D=self.D.data_ptr(),
            conv_weight=native.address(self.conv1d),
            conv_bias=native.address(self.conv_bias),
        )
        return call, None

    def work(self, shape: Shape) -> int:
        return shape.batch * shape.length * self.D.shape[0]
