"""What the functions of this package ask of their arguments, and the type they compute in."""

from collections.abc import Mapping

import torch
from torch import Tensor

Named = Mapping[str, Tensor | None]


def working_type(x: Tensor) -> torch.dtype:
    """float64 stays float64; anything else is computed in float32."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def check_shapes(fit: bool, allowed: str, given: Named) -> None:
    """Raise ValueError with what is allowed and the shapes that were given, unless they fit."""
    if not fit:
        shapes = (f"{name} {'None' if x is None else tuple(x.shape)}" for name, x in given.items())
        raise ValueError(f"{allowed}; got {', '.join(shapes)}")


def check_real(given: Named) -> None:
    """Raise TypeError unless each is a tensor of real floating-point numbers, or None."""
    for name, x in given.items():
        if x is not None and not (isinstance(x, Tensor) and x.is_floating_point()):
            kind = str(x.dtype) if isinstance(x, Tensor) else repr(x)
            raise TypeError(f"{name} must be a tensor of real floating-point numbers, got {kind}")


def check_integers(name: str, x: Tensor) -> None:
    """Raise TypeError unless x is a tensor of integers."""
    if not isinstance(x, Tensor) or x.is_floating_point() or x.is_complex():
        kind = str(x.dtype) if isinstance(x, Tensor) else repr(x)
        raise TypeError(f"{name} must be a tensor of integers, got {kind}")


def rows_and_slots(name: str, indices: Tensor, batch: int, slots: int) -> tuple[Tensor, Tensor]:
    """The rows of a batch that have a state, and the slot of each in a larger tensor of states.

    indices (batch,), integers: the slot of each row; a negative one marks padding, which has
    none.  Raises TypeError unless they are integers, ValueError for another shape, for a slot
    that does not exist and for two rows with one slot, whose order nothing would decide.
    """
    check_integers(name, indices)
    if indices.shape != (batch,):
        raise ValueError(f"{name} must be (batch,) = ({batch},), got {tuple(indices.shape)}")
    rows = (indices >= 0).nonzero().squeeze(1)
    chosen = indices[rows].long()
    if bool((chosen >= slots).any()):
        raise ValueError(f"{name} must be below {slots}, the number of states; got {chosen.max()}")
    if len(chosen.unique()) < len(chosen):
        raise ValueError(f"{name} must name each state once, got {indices.tolist()}")
    return rows, chosen
