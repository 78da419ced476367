"""The short causal convolution that mixers may have, a `Conv1d` with a filter for each channel."""

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from recall_arena.kernels.layer import Map
from recall_arena.shapes import Channels
from recall_arena.watching import remember, stock

Tail = Float[Tensor, "batch before channels"]


def convolution(channels: int, window: int, *, bias: bool) -> nn.Conv1d | None:
    """One that sees `window` positions; none where that is the present one alone.

    It pads both ends, as that of Mamba's authors does; `convolved` cuts off what lies behind.
    """
    if window == 1:
        return None
    return nn.Conv1d(channels, channels, window, groups=channels, padding=window - 1, bias=bias)


def window_of(conv: nn.Module | None) -> int:
    """How many positions it sees.

    Raises NotImplementedError for a module in its place that is no `Conv1d`.
    """
    if not isinstance(conv, nn.Conv1d | None):
        raise NotImplementedError(
            f"how many positions a {type(conv).__name__} sees is not known; it stands where a "
            "Conv1d was"
        )
    return 1 if conv is None else conv.kernel_size[0]


def convolved(conv: nn.Module | None, x: Channels) -> Channels:
    """silu(conv x)."""
    if conv is not None:
        x = conv(x.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2)
    return F.silu(x)


def carried(conv: Map | None, x: Channels, tail: Tail | None, window: int) -> tuple[Channels, Tail]:
    """conv x where `tail` came before, and the tail after x.

    `conv` is a causal map that sees `window` positions, None for none; a tail is its last
    window - 1 inputs, None at the start, where they are 0.
    """
    before = window - 1
    seen = F.pad(x, (0, 0, before, 0)) if tail is None else torch.cat([tail, x], dim=1)
    y = (seen if conv is None else conv(seen))[:, before:]
    return y, seen[:, seen.shape[1] - before :].clone()  # a copy, which does not hold all of `seen`


def stock_convolution(conv: nn.Module | None, *weights: str) -> bool:
    """Whether it is as `convolution` makes it, with these parameters and no others."""
    return conv is None or (
        stock(conv, nn.Conv1d, *weights)
        and _depthwise(cast(nn.Conv1d, conv), padding=window_of(conv) - 1)
    )


@remember
class CausalConv1d(nn.Conv1d):
    """A depthwise convolution of (batch, length, width): `window` positions, no later one.

    No SiLU follows, as it does on the other.
    """

    def __init__(self, width: int, window: int) -> None:
        super().__init__(width, width, window, groups=width, bias=False)

    def forward(self, x: Channels) -> Channels:
        padded = F.pad(x.transpose(1, 2), (self.kernel_size[0], 0))  # one more, for length 0
        return super().forward(padded)[..., 1:].transpose(1, 2)


def stock_causal(conv: nn.Module | None) -> bool:
    """Whether it is a `CausalConv1d` as it was built, or none."""
    return conv is None or (
        stock(conv, CausalConv1d, "weight") and _depthwise(cast(CausalConv1d, conv), padding=0)
    )


def _depthwise(conv: nn.Conv1d, padding: int) -> bool:
    """A filter for each channel, at each position, and zeros before the first."""
    kept = (conv.groups, conv.stride, conv.dilation, conv.padding, conv.padding_mode)
    return kept == (conv.in_channels, (1,), (1,), (padding,), "zeros")
