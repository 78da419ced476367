"""The type that numbers are computed in, whatever type they come in."""

import torch
from torch import Tensor


def working_type(x: Tensor) -> torch.dtype:
    """float64 stays float64; anything else is computed in float32."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32
