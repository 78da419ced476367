"""Layer normalisation (arXiv:1607.06450, eq. 4), or RMS (arXiv:1910.07467), for the kernels."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from recall_arena.kernels import native, structs

PerNumber = Float[Tensor, " width"]


class Norm(NamedTuple):
    """What a layer norm is made of, or without a bias an RMS norm."""

    weight: PerNumber
    bias: PerNumber | None
    epsilon: float

    @classmethod
    def of(cls, module: nn.LayerNorm | nn.RMSNorm) -> "Norm":
        """That of torch's module."""
        if isinstance(module, nn.LayerNorm):
            return cls(module.weight, module.bias, module.eps)
        epsilon = torch.finfo(module.weight.dtype).eps if module.eps is None else module.eps
        return cls(module.weight, None, epsilon)

    def weights(self) -> tuple[Tensor, ...]:
        """All of them, in the kernel's order."""
        return (self.weight, *native.given(self.bias))


def check_norm(norm: Norm, width: int) -> None:
    """Raises ValueError if the norm is not for vectors of `width` numbers."""
    shapes = [tuple(w.shape) for w in norm.weights()]
    if any(shape != (width,) for shape in shapes):
        got = " and ".join(map(str, shapes))
        raise ValueError(f"the norm's weight and bias must be ({width},), got {got}")


def native_norm(norm: Norm | None) -> structs.Norm:
    """The struct for a norm, or for none."""
    if norm is None:
        return structs.Norm()
    return structs.Norm(*(native.address(w) for w in norm[:2]), norm.epsilon)
