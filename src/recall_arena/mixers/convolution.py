"""The short causal convolution that mixers may have, a `Conv1d` with a filter for each channel."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from recall_arena.kernels.layer import Map
from recall_arena.shapes import Channels
from recall_arena.watching import stock

Tail = Float[Tensor, "batch before channels"]


def convolution(channels: int, window: int, *, bias: bool) -> nn.Conv1d | None:
    """One that sees `window` positions; none where that is the present one alone.

    It pads both ends, as that of Mamba's authors does; `convolved` cuts off what lies behind.
    """
    if window == 1:
        return None
    return nn.Conv1d(channels, channels, window, groups=channels, padding=window - 1, bias=bias)


def window_of(conv: nn.Conv1d | None) -> int:
    """How many positions it sees."""
    return 1 if conv is None else conv.kernel_size[0]


def convolved(conv: nn.Conv1d | None, x: Channels) -> Channels:
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


def stock_convolution(conv: nn.Conv1d | None, *weights: str) -> bool:
    """Whether it is as `convolution` makes it, with these parameters and no others."""
    return conv is None or (
        stock(conv, nn.Conv1d, *weights)
        and (conv.groups, conv.stride, conv.dilation) == (conv.in_channels, (1,), (1,))
        and (conv.padding, conv.padding_mode) == ((conv.kernel_size[0] - 1,), "zeros")
    )
