"""Whether a module is as it was built and nobody watches it, so that its parts need no call.

Compiled code reads weights and calls no module.  Where somebody's hook wants to see a part at
work, or something else stands in its place, the parts have to be called one by one.
"""

from collections.abc import Callable, Iterable
from itertools import chain
from operator import is_
from typing import Any, TypeVar

from torch import nn
from torch.nn.modules import module as of_all_modules

_OWN = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
_GLOBAL = (
    *("_global_forward_pre_hooks", "_global_forward_hooks"),
    *("_global_backward_pre_hooks", "_global_backward_hooks"),
)

_Module = TypeVar("_Module", bound=nn.Module)

_WRITTEN: dict[type, Callable[..., Any]] = {
    kind: kind.forward for kind in (nn.Linear, nn.Embedding, nn.LayerNorm, nn.RMSNorm, nn.Conv1d)
}
"""The `forward` that each class was written with."""


def remember(kind: type[_Module]) -> type[_Module]:
    """Keep a class's `forward`, so that one that is put in its place later is noticed."""
    _WRITTEN[kind] = kind.forward
    return kind


def as_written(kind: type[nn.Module]) -> bool:
    """Whether a class has the `forward` that it was written with, as far as that is known."""
    return kind.forward is _WRITTEN.get(kind, kind.forward)


def beside_forward(kind: type[nn.Module], name: str) -> bool:
    """Whether a class has `name` from where it has its `forward`, or overrides it alone."""
    first = next(each for each in kind.__mro__ if {name, "forward"} & vars(each).keys())
    return name in vars(first) and as_written(kind)


def watched(modules: Iterable[nn.Module]) -> bool:
    """Whether one of these modules has to be called: for a hook, or for a `forward` that the
    instance or its class was given later."""
    everywhere = vars(of_all_modules)
    return any(everywhere[name] for name in _GLOBAL) or any(
        "forward" in vars(module)
        or any(vars(module)[name] for name in _OWN)
        or not as_written(type(module))
        for module in modules
    )


def stock(module: nn.Module, kind: type[nn.Module], *weights: str) -> bool:
    """Whether this is a `kind` itself, no subclass, with these parameters and no others."""
    held = {name for name, weight in module._parameters.items() if weight is not None}
    return type(module) is kind and held == set(weights) and not module._modules


def bias_of(module: nn.Module | None) -> tuple[str, ...]:
    """The name of its bias where there is one; for `stock` to allow it."""
    return ("bias",) if module is not None and module._parameters.get("bias") is not None else ()


def alike(a: nn.Module, b: nn.Module) -> bool:
    """Whether two modules compute the same where they have the same weights, as far as is known:
    their parts are of the same classes and have the same options, and nobody watches them."""
    ours, theirs = dict(a.named_modules()), dict(b.named_modules())
    if ours.keys() != theirs.keys() or watched([*ours.values(), *theirs.values()]):
        return False
    pairs = [(ours[name], theirs[name]) for name in ours]
    return all(type(x) is type(y) and _told(x) == _told(y) for x, y in pairs)


def _told(module: nn.Module) -> dict[str, object]:
    """Its options: what it has that is neither a weight, a part or a hook."""
    return {
        name: value
        for name, value in vars(module).items()
        if not (isinstance(value, dict | set) or name == "training" or name.startswith("_is_"))
    }


class Watch:
    """Tells, call after call and in microseconds, whether a model is still what it was at first.

    It compares classes and their `forward`, options, parameters and submodules, and holds what it
    compares with, so that no other object can take its place in memory.
    """

    def __init__(self, model: nn.Module) -> None:
        self._modules = list(model.modules())
        own = [vars(module) for module in self._modules]
        held = [each[name] for each in own for name in ("_parameters", "_modules")]
        self._hooks = [vars(of_all_modules)[name] for name in _GLOBAL]
        self._hooks += [each[name] for each in own for name in _OWN]
        self._weights = list(model.parameters())
        self._options = [
            (name, value, vars(module))
            for module in self._modules
            for name, value in _told(module).items()
        ]
        self._dicts = own + held
        self._sizes = list(map(len, self._dicts))
        self._own_forward = any("forward" in each for each in own)
        self._classes = list(map(type, self._modules))
        self._kinds = set(self._classes)
        self._views = [each.values() for each in held if each]
        self._objects = list(chain.from_iterable(self._views))

    def unchanged(self) -> bool:
        """Whether all of it is the same, and no hook is there."""
        return (
            not (self._own_forward or any(self._hooks))
            and not any(w._backward_hooks or w._post_accumulate_grad_hooks for w in self._weights)
            and list(map(len, self._dicts)) == self._sizes
            and list(map(type, self._modules)) == self._classes
            and all(map(as_written, self._kinds))
            and all(map(is_, chain.from_iterable(self._views), self._objects))
            and all(_same(own.get(name), value) for name, value, own in self._options)
        )


def _same(now: object, then: object) -> bool:
    """The same object, or an equal number, text or tuple, which have no identity of their own."""
    return now is then or (isinstance(then, int | float | str | tuple) and now == then)
