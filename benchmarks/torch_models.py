"""What people run on a CPU without this package: the same mixers in plain, eager PyTorch.

All take the weights of ours under the same names.
"""

import copy
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.measuring import Results, optional
from recall_arena.kernels import causal_conv_definition, selective_scan_definition
from recall_arena.mixers import Attention, Mamba, Mixer
from recall_arena.model import Block, SequenceModel

Scan = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor], Tensor]
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


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


class PlainMamba(Mamba):
    """Our weights, eager operations, and the scan that is given."""

    continues = False  # else long sequences would go through our kernels after all
    residual, last_residual = Mixer.residual, Mixer.last_residual  # and these do

    def __init__(self, width: int, scan: Scan) -> None:
        super().__init__(width)
        self.scan = scan

    def forward(self, x: Tensor) -> Tensor:
        return self.of_projected(self.in_proj(x))

    def of_projected(self, projected: Tensor) -> Tensor:
        """Every position's output, from that of in_proj."""
        u, z = projected.chunk(2, dim=-1)
        return self.out_proj(self._mix(u, z))

    def last(self, x: Tensor) -> Tensor:
        into_u, into_z = self.in_proj.weight.chunk(2)
        z = F.linear(x[:, -1], into_z)
        return self.out_proj(self._mix(F.linear(x, into_u), None)[:, -1] * F.silu(z))

    def _mix(self, u: Tensor, z: Tensor | None) -> Tensor:
        assert self.conv1d.bias is not None
        u = causal_conv_definition(u, self.conv1d.weight.squeeze(1), self.conv1d.bias)
        state = self.A_log.shape[1]
        rank = self.dt_proj.in_features
        delta, B, C = self.x_proj(u).split([rank, state, state], dim=-1)
        delta = F.linear(delta, self.dt_proj.weight)
        return self.scan(u, delta, -self.A_log.exp(), B, C, self.D, z, self.dt_proj.bias)


class PlainAttention(Attention):
    """Our weights, one head, and the attention that is given."""

    residual, last_residual = Mixer.residual, Mixer.last_residual  # ours go through our kernels

    def __init__(self, width: int, rotary: bool, attend: Attend) -> None:
        super().__init__(width, rotary=rotary)
        self.attend = attend

    def forward(self, x: Tensor) -> Tensor:
        return self.of_projected(self.in_proj(x))

    def of_projected(self, projected: Tensor) -> Tensor:
        """Every position's output, from that of in_proj."""
        q, k, v = projected.unsqueeze(1).chunk(3, dim=-1)
        if self.rotary:
            q, k = rotated(q, k)
        return self.out_proj(self.attend(q, k, v).squeeze(1))

    def last(self, x: Tensor) -> Tensor:
        width = x.shape[2]
        q = F.linear(x[:, -1:], self.in_proj.weight[:width]).unsqueeze(1)
        k, v = F.linear(x, self.in_proj.weight[width:]).unsqueeze(1).chunk(2, dim=-1)
        if self.rotary:
            q, k = rotated(q, k)
        return self.out_proj(self.attend(q, k, v)[:, 0, 0])


def rotated(q: Tensor, k: Tensor, base: float = 10_000.0) -> tuple[Tensor, Tensor]:
    """Rotary positions in both; fewer queries than keys are the last ones."""
    half, length = k.shape[3] // 2, k.shape[2]
    angle = torch.arange(length).unsqueeze(1) * base ** -(torch.arange(half) / half)
    cos, sin = angle.cos(), angle.sin()

    def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        left, right = x.chunk(2, dim=-1)
        return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)

    return turn(q, cos[-q.shape[2] :], sin[-q.shape[2] :]), turn(k, cos, sin)


def mambapy_block(width: int, *, pscan: bool = True) -> nn.Module:
    """mambapy's block, with its parallel scan or its loop.  Raises Unavailable if not installed."""
    with optional():
        from mambapy.mamba import (  # type: ignore[import-untyped]
            MambaBlock,
            MambaConfig,
        )
    block: nn.Module = MambaBlock(MambaConfig(d_model=width, n_layers=1, pscan=pscan))
    return block


class LastOf(nn.Module):
    """Somebody's block where ours reads `last` of a mixer: it has no shorter way to it."""

    continues = False
    residual, last_residual, layer = Mixer.residual, Mixer.last_residual, Mixer.layer

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)

    def last(self, x: Tensor) -> Tensor:
        """The last of all outputs."""
        return self.block(x)[:, -1]


def with_mixers(model: SequenceModel, replace: Callable[[Mixer], nn.Module]) -> SequenceModel:
    """A copy of the model, each mixer replaced by another with the same weights."""
    model = copy.deepcopy(model)
    for block in model.layers:
        mixer = cast(Mixer, block.mixer)
        other = replace(mixer)
        inner = other.block if isinstance(other, LastOf) else other
        inner.load_state_dict(mixer.state_dict(), strict=True)
        block.mixer = other
    return model


def eager(
    scan: Scan = selective_scan_definition, attend: Attend = fused_attention
) -> Callable[[Mixer], nn.Module]:
    """Each of our mixers in eager PyTorch."""

    def replace(mixer: Mixer) -> nn.Module:
        width = mixer.get_parameter("out_proj.weight").shape[0]
        if isinstance(mixer, Attention):
            return PlainAttention(width, mixer.rotary, attend)
        return PlainMamba(width, scan)

    return replace


def eager_with_mambapy(mixer: Mixer) -> nn.Module:
    """Attention in eager PyTorch, Mamba by mambapy.  Raises Unavailable if it is not installed."""
    if isinstance(mixer, Attention):
        return eager()(mixer)
    return LastOf(mambapy_block(mixer.get_parameter("out_proj.weight").shape[0]))


class ProjectedOnce(SequenceModel):
    """A model of eager mixers, without positions, whose first layer projects each token once."""

    def forward(self, tokens: Tensor) -> Tensor:
        first, *between, last = cast("list[Block]", list(self.layers))
        mixer = cast("PlainMamba | PlainAttention", first.mixer)
        each = F.linear(first.norm(self.embedding.weight), mixer.in_proj.weight)
        x = self.embedding(tokens) + mixer.of_projected(F.embedding(tokens, each))
        for block in between:
            x = block(x)
        return self.lm_head(self.norm_f(last.last(x)))


def projected_once(model: SequenceModel) -> SequenceModel:
    """The eager model, its first layer's projection done once a token."""
    other = with_mixers(model, eager())
    other.__class__ = ProjectedOnce
    return other


def arrays(tensors: dict[str, Tensor]) -> Results:
    """The numbers, for comparison; a wrapped block's weights are named as ours."""
    return {name.replace(".block.", "."): t.detach().numpy() for name, t in tensors.items()}
