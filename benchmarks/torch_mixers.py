"""What people run on a CPU without this package: the mixers in plain, eager PyTorch.

All take the weights of ours under the same names; none calls a kernel of ours.  With `last` a
mixer computes the last position alone, (batch, 1, width).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.measuring import optional
from benchmarks.torch_gated_delta import PlainGatedDelta, transformers_delta
from recall_arena.kernels import causal_conv_definition, selective_scan_definition
from recall_arena.mixers import Attention, GatedDelta, Mamba
from recall_arena.mixers.convolution import CausalConv1d, convolution
from recall_arena.mixers.text import read_mixer

Scan = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor], Tensor]
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
MixerMaker = Callable[[str, int], nn.Module]
"""A mixer's name, as a model spells it, and its width, to the mixer."""


def reference_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor | None,
    delta_bias: Tensor,
) -> Tensor:
    """The steps of mamba-ssm's `selective_scan_ref`, the loop it runs without CUDA, transcribed.

    All decays and drives are formed at once, (batch, channels, length, state); then a loop over
    positions with one product of state and C in each.  mamba-ssm keeps `length` last; here the
    arguments are ours, (batch, length, channels), and the transposes copy nothing.
    """
    u, delta, B, C = (x.transpose(1, 2) for x in (u, delta, B, C))
    delta = F.softplus(delta + delta_bias.unsqueeze(-1))
    decay = torch.exp(torch.einsum("bdl,dn->bdln", delta, A))
    drive = torch.einsum("bdl,bnl,bdl->bdln", delta, B, u)
    h = A.new_zeros(u.shape[0], *A.shape)
    outputs = []
    for t in range(u.shape[2]):
        h = decay[:, :, t] * h + drive[:, :, t]
        outputs.append(torch.einsum("bdn,bn->bd", h, C[:, :, t]))
    y = torch.stack(outputs, dim=2) + u * D.unsqueeze(-1)
    if z is not None:
        y = y * F.silu(z.transpose(1, 2))
    return y.transpose(1, 2)


def fused_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """PyTorch's own fused attention; a lone query is the last one and sees every key."""
    return F.scaled_dot_product_attention(q, k, v, is_causal=q.shape[-2] > 1)


class PlainMamba(nn.Module):
    """Mamba of eager operations around the scan that is given."""

    def __init__(self, width: int, scan: Scan, state: int = 16, window: int = 4) -> None:
        super().__init__()
        inner, rank = 2 * width, math.ceil(width / 16)
        self.scan = scan
        self.split = [rank, state, state]
        self.in_proj = nn.Linear(width, 2 * inner, bias=False)
        self.conv1d = convolution(inner, window, bias=True)
        self.x_proj = nn.Linear(inner, sum(self.split), bias=False)
        self.dt_proj = nn.Linear(rank, inner)
        self.A_log = nn.Parameter(torch.zeros(inner, state))
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor, last: bool = False) -> Tensor:
        if not last:
            return self.of_projected(self.in_proj(x))
        into_u, into_z = self.in_proj.weight.chunk(2)
        z = F.linear(x[:, -1:], into_z)
        return self.out_proj(self._mix(F.linear(x, into_u), None)[:, -1:] * F.silu(z))

    def of_projected(self, projected: Tensor) -> Tensor:
        """Every position's output, from that of in_proj."""
        u, z = projected.chunk(2, dim=-1)
        return self.out_proj(self._mix(u, z))

    def _mix(self, u: Tensor, z: Tensor | None) -> Tensor:
        if self.conv1d is None:
            u = F.silu(u)
        else:
            assert self.conv1d.bias is not None
            u = causal_conv_definition(u, self.conv1d.weight.squeeze(1), self.conv1d.bias)
        delta, B, C = self.x_proj(u).split(self.split, dim=-1)
        delta = F.linear(delta, self.dt_proj.weight)
        return self.scan(u, delta, -self.A_log.exp(), B, C, self.D, z, self.dt_proj.bias)


class PlainAttention(nn.Module):
    """One head of eager operations around the attention that is given.

    `windows` are those of the convolutions of queries, keys and values, 1 for none.
    """

    def __init__(
        self,
        width: int,
        rotary: bool,
        attend: Attend,
        windows: tuple[int, int, int] = (1, 1, 1),
    ) -> None:
        super().__init__()
        self.rotary, self.attend = rotary, attend
        self.in_proj = nn.Linear(width, 3 * width, bias=False)
        self.q_conv1d, self.k_conv1d, self.v_conv1d = (
            None if window == 1 else CausalConv1d(width, window) for window in windows
        )
        self.seen = windows[0]
        self.out_proj = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, last: bool = False) -> Tensor:
        if not last:
            return self.of_projected(self.in_proj(x))
        width = x.shape[2]
        q = F.linear(x[:, -self.seen :], self.in_proj.weight[:width])
        k, v = F.linear(x, self.in_proj.weight[width:]).chunk(2, dim=-1)
        return self._mix(q, k, v, last=True)

    def of_projected(self, projected: Tensor) -> Tensor:
        """Every position's output, from that of in_proj."""
        q, k, v = projected.chunk(3, dim=-1)
        return self._mix(q, k, v)

    def _mix(self, q: Tensor, k: Tensor, v: Tensor, last: bool = False) -> Tensor:
        convolutions = (self.q_conv1d, self.k_conv1d, self.v_conv1d)
        q, k, v = (
            (x if conv is None else conv(x)).unsqueeze(1)
            for conv, x in zip(convolutions, (q, k, v), strict=True)
        )
        q = q[:, :, -1:] if last else q
        if self.rotary:
            q, k = rotated(q, k)
        return self.out_proj(self.attend(q, k, v).squeeze(1))


def rotated(q: Tensor, k: Tensor, base: float = 10_000.0) -> tuple[Tensor, Tensor]:
    """Rotary positions in both; fewer queries than keys are the last ones."""
    half, length = k.shape[3] // 2, k.shape[2]
    angle = torch.arange(length).unsqueeze(1) * base ** -(torch.arange(half) / half)
    cos, sin = angle.cos(), angle.sin()

    def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        left, right = x.chunk(2, dim=-1)
        return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)

    return rotate(q, cos[-q.shape[2] :], sin[-q.shape[2] :]), rotate(k, cos, sin)


def mambapy_block(width: int, *, pscan: bool = True) -> nn.Module:
    """mambapy's block, with its parallel scan or its loop.  Raises Unavailable if not installed."""
    with optional():
        from mambapy.mamba import (  # type: ignore[import-untyped]
            MambaBlock,
            MambaConfig,
        )
    block: nn.Module = MambaBlock(MambaConfig(d_model=width, n_layers=1, pscan=pscan))
    return block


def eager(scan: Scan = selective_scan_definition, attend: Attend = fused_attention) -> MixerMaker:
    """Each mixer in eager PyTorch; the maker raises ValueError for a kind that it does not know."""

    def make(name: str, width: int) -> nn.Module:
        match read_mixer(name):
            case Mamba(window=window):
                return PlainMamba(width, scan, window=window)
            case Attention(positions=positions) as options:
                windows = (options.q_window, options.k_window, options.v_window)
                return PlainAttention(width, positions == "rope", attend, windows)
            case GatedDelta():
                return PlainGatedDelta(width, transformers_delta(chunked=True))
            case _:
                raise ValueError(f"no eager mixer for {name!r}")

    return make


def eager_with_mambapy(name: str, width: int) -> nn.Module:
    """The same with Mamba by mambapy.  Raises Unavailable if it is not installed."""
    return mambapy_block(width) if name == "mamba" else eager()(name, width)
