"""Marks on weights, that libraries of this field heed when they initialise and regularise.

They are attributes of the parameters, as in mamba-ssm.  `copy.deepcopy` and
`load_state_dict(assign=True)` make parameters without them, so a module that has marks says which
and sets them again.
"""

from abc import abstractmethod
from typing import Any

from torch import nn


class Marked(nn.Module):
    """A module whose weights have marks, and so have those of its copies."""

    def __init__(self) -> None:
        super().__init__()
        self.register_load_state_dict_post_hook(_mark_again)  # type: ignore[no-untyped-call]

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self.mark()

    @abstractmethod
    def mark(self) -> None:
        """Set the marks of the weights that are there."""


def no_weight_decay(*weights: nn.Parameter | None) -> None:
    """Weight decay is to leave these alone."""
    for weight in weights:
        if weight is not None:
            weight._no_weight_decay = True  # type: ignore[attr-defined]


def no_reinit(*weights: nn.Parameter | None) -> None:
    """What initialises all biases at once is to leave these alone."""
    for weight in weights:
        if weight is not None:
            weight._no_reinit = True  # type: ignore[attr-defined]


def _mark_again(module: Marked, _keys: object) -> None:
    module.mark()
