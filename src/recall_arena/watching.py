"""Whether a module is as it was built and nobody watches it, so that its parts need no call.

Compiled code reads weights and calls no module.  Where somebody's hook wants to see a part at
work, or something else stands in its place, the parts have to be called one by one.
"""

from collections.abc import Iterable
from itertools import chain
from operator import is_

from torch import nn
from torch.nn.modules import module as of_all_modules

_OWN = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
_GLOBAL = (
    *("_global_forward_pre_hooks", "_global_forward_hooks"),
    *("_global_backward_pre_hooks", "_global_backward_hooks"),
)


def watched(modules: Iterable[nn.Module]) -> bool:
    """Whether a hook, or a `forward` of the instance, wants one of these modules to be called."""
    everywhere = vars(of_all_modules)
    return any(everywhere[name] for name in _GLOBAL) or any(
        "forward" in own or any(own[name] for name in _OWN) for own in map(vars, modules)
    )


def stock(module: nn.Module, kind: type[nn.Module], *weights: str) -> bool:
    """Whether this is a `kind` itself, no subclass, with these parameters and no others."""
    held = {name for name, weight in module._parameters.items() if weight is not None}
    return type(module) is kind and held == set(weights) and not module._modules


def bias_of(module: nn.Module | None) -> tuple[str, ...]:
    """The name of its bias where there is one; for `stock` to allow it."""
    return ("bias",) if module is not None and module._parameters.get("bias") is not None else ()


class Watch:
    """Tells, call after call and in microseconds, whether a model is still what it was at first.

    It compares classes, options, parameters and submodules, and holds what it compares with, so
    that no other object can take its place in memory.
    """

    def __init__(self, model: nn.Module) -> None:
        self._modules = list(model.modules())
        own = [vars(module) for module in self._modules]
        held = [each[name] for each in own for name in ("_parameters", "_modules")]
        self._hooks = [vars(of_all_modules)[name] for name in _GLOBAL]
        self._hooks += [each[name] for each in own for name in _OWN]
        self._weights = list(model.parameters())
        self._options = [
            (name, value, each)
            for each in own
            for name, value in each.items()
            if isinstance(value, int | float | str | tuple) and name != "training"
        ]
        self._dicts = own + held
        self._sizes = list(map(len, self._dicts))
        self._classes = list(map(type, self._modules))
        self._views = [each.values() for each in held if each]
        self._objects = list(chain.from_iterable(self._views))

    def unchanged(self) -> bool:
        """Whether all of it is the same, and no hook is there."""
        return (
            not any(self._hooks)
            and not any(w._backward_hooks or w._post_accumulate_grad_hooks for w in self._weights)
            and list(map(len, self._dicts)) == self._sizes
            and list(map(type, self._modules)) == self._classes
            and all(map(is_, chain.from_iterable(self._views), self._objects))
            and all(own.get(name) == value for name, value, own in self._options)
        )
