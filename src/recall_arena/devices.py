"""Where a run's tensors are: this processor, or an accelerator, on which the definitions run.

Batches are drawn and answers are counted on the processor, so sequences are the same everywhere.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from recall_arena.names import unknown

DEVICES = ("auto", "cpu", "cuda", "mps")


def check_device(name: str) -> None:
    """Raises ValueError for a name that no machine knows."""
    if name not in DEVICES:
        raise ValueError(unknown("device", name, DEVICES))


def device_named(name: str) -> torch.device:
    """The device of this machine; "auto" is its accelerator, or the processor if it has none.

    Raises ValueError for another name, or a device that is not there.
    """
    check_device(name)
    accelerator = (
        torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    )
    there = "cpu" if accelerator is None or accelerator.type not in DEVICES else accelerator.type
    if name not in ("auto", "cpu", there):
        sees = "no accelerator" if there == "cpu" else there
        raise ValueError(f"there is no {name} device here; torch {torch.__version__} sees {sees}")
    return torch.device("cpu" if name == "cpu" else there)


def brought(function: Callable[..., Tensor], device: torch.device) -> Callable[..., Tensor]:
    """The function with its tensors brought to a device, and its value brought back."""
    if device.type == "cpu":
        return function

    def there_and_back(*tensors: Tensor) -> Tensor:
        return function(*(tensor.to(device) for tensor in tensors)).cpu()

    return there_and_back


def accelerator_name(device: torch.device) -> str:
    """What the accelerator calls itself; empty for the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return "" if device.type == "cpu" else device.type
