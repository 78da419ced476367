"""Layer normalisation (Ba et al. 2016, arXiv:1607.06450, eq. 4) as the kernels are given it."""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from recall_arena.kernels import structs

PerNumber = Float[Tensor, " width"]


class Norm(NamedTuple):
    """What a layer norm is made of."""

    weight: PerNumber
    bias: PerNumber
    epsilon: float

    @classmethod
    def of(cls, module: nn.LayerNorm) -> "Norm":
        """That of torch's module."""
        return cls(module.weight, module.bias, module.eps)


def check_norm(norm: Norm, width: int) -> None:
    """Raises ValueError if the norm is not for vectors of `width` numbers."""
    if not norm.weight.shape == norm.bias.shape == (width,):
        raise ValueError(
            f"the norm's weight and bias must be ({width},), "
            f"got {tuple(norm.weight.shape)} and {tuple(norm.bias.shape)}"
        )


def native_norm(norm: Norm | None) -> structs.Norm:
    """The struct for a norm, or for none."""
    if norm is None:
        return structs.Norm()
    return structs.Norm(norm.weight.data_ptr(), norm.bias.data_ptr(), norm.epsilon)
