"""The layers of a stack: residual blocks as the tensors that they are made of.

A layer gives `stack` the struct that its kernel reads, and says where its weights' gradients go.
"""

import ctypes
from dataclasses import dataclass

import torch
from torch import Tensor

from recall_arena.kernels.attention_mixer import arguments as attention_arguments
from recall_arena.kernels.attention_mixer import check_weights as check_attention
from recall_arena.kernels.causal_attention import is_small, kept_rotary_table
from recall_arena.kernels.mamba_mixer import CHANNELS_LAST, MambaWeights, has_room
from recall_arena.kernels.mamba_mixer import arguments as mamba_arguments
from recall_arena.kernels.mamba_mixer import check_weights as check_mamba
from recall_arena.kernels.residual import Norm, check_norm

Arguments = tuple[ctypes.Structure, Tensor | None]
"""A struct, and what it points to beside the layer's weights."""


@dataclass(frozen=True)
class MambaLayer:
    """x + mamba_mixer(norm(x))."""

    mixer: MambaWeights
    norm: Norm

    def weights(self) -> tuple[Tensor, ...]:
        """All weights, in the kernel's order."""
        return (*self.mixer, self.norm.weight, self.norm.bias)

    def turned(self) -> tuple[bool, ...]:
        """For each weight, whether the kernel leaves its gradient with the axes exchanged."""
        return (*(name in CHANNELS_LAST for name in self.mixer._fields), False, False)

    def fits(self, length: int, width: int) -> bool:
        """Whether the kernel takes it.  Raises ValueError if weights do not fit together."""
        check_mamba(width, self.mixer)
        check_norm(self.norm, width)
        return has_room(self.mixer)

    def arguments(self, shape: torch.Size, *, last: bool) -> Arguments:
        """What the kernel reads, for x of this shape."""
        return mamba_arguments(shape, self.weights(), self.norm.epsilon, last), None


@dataclass(frozen=True)
class AttentionLayer:
    """x + attention_mixer(norm(x)); `rotary` for RoPE."""

    in_proj: Tensor
    out_proj: Tensor
    norm: Norm
    heads: int
    rotary: bool

    def weights(self) -> tuple[Tensor, ...]:
        """All weights, in the kernel's order."""
        return (self.in_proj, self.out_proj, self.norm.weight, self.norm.bias)

    def turned(self) -> tuple[bool, ...]:
        """For each weight, whether the kernel leaves its gradient with the axes exchanged."""
        return (False,) * 4

    def fits(self, length: int, width: int) -> bool:
        """Whether the kernel takes it.  Raises ValueError if weights do not fit together."""
        check_attention(torch.Size((1, length, width)), self.in_proj, self.out_proj, self.heads)
        check_norm(self.norm, width)
        head_width = width // self.heads
        return is_small(length, head_width) and not (self.rotary and head_width % 2)

    def arguments(self, shape: torch.Size, *, last: bool) -> Arguments:
        """What the kernel reads, for x of this shape."""
        _, length, width = shape
        dtype, device = self.in_proj.dtype, self.in_proj.device
        table = None
        if self.rotary:
            table = kept_rotary_table(length, width // self.heads, dtype, device)
        rest = (table, self.heads, 1 if last else length, self.norm.epsilon)
        return attention_arguments(shape, self.weights(), *rest), table


Layer = MambaLayer | AttentionLayer
