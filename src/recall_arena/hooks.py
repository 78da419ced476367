"""Whether somebody watches a model at work, so that its parts have to be called one by one."""

from torch import nn
from torch.nn.modules import module as of_all_modules

NAMES = (
    *("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks"),
    *("_global_forward_pre_hooks", "_global_forward_hooks"),
    *("_global_backward_pre_hooks", "_global_backward_hooks"),
)


class Hooks:
    """The hooks of a model's modules and weights, and those that torch keeps for all modules.

    It is true as soon as there is one, also when that is registered later.
    """

    def __init__(self, model: nn.Module) -> None:
        places = [vars(of_all_modules), *map(vars, model.modules())]
        self._registered = [place[name] for place in places for name in NAMES if name in place]
        self._weights = list(model.parameters())

    def __bool__(self) -> bool:
        return any(self._registered) or any(
            weight._backward_hooks or weight._post_accumulate_grad_hooks for weight in self._weights
        )
