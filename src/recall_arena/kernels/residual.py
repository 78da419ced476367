"""A mixer's pre-norm residual block, x + mixer(norm(x)), which the mixers' kernels do in one pass.

The norm is layer normalisation (Ba et al. 2016, arXiv:1607.06450, eq. 4).
"""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from recall_arena.kernels import structs
from recall_arena.shapes import Hidden

PerNumber = Float[Tensor, " width"]


class Norm(NamedTuple):
    """What a layer norm is made of.  A mixer that is given one works as the residual block."""

    weight: PerNumber
    bias: PerNumber
    epsilon: float

    @classmethod
    def of(cls, module: nn.LayerNorm) -> "Norm":
        """That of torch's module, whose gradients then come from the mixer."""
        return cls(module.weight, module.bias, module.eps)

    def __call__(self, x: Hidden) -> Hidden:
        """Each position's numbers with mean zero and variance one, times weight, plus bias."""
        return F.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.epsilon)


def check_norm(norm: Norm | None, width: int) -> None:
    """Raises ValueError if the norm is not for vectors of `width` numbers."""
    if norm is not None and not norm.weight.shape == norm.bias.shape == (width,):
        raise ValueError(
            f"the norm's weight and bias must be ({width},), "
            f"got {tuple(norm.weight.shape)} and {tuple(norm.bias.shape)}"
        )


def native_norm(weights: tuple[Tensor, ...], epsilon: float) -> structs.Norm:
    """The struct for a norm's weight and bias, or for no norm where there are none."""
    return structs.Norm(*(w.data_ptr() for w in weights), epsilon=epsilon)
