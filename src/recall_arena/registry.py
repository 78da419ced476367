"""What can be called by a name: this package's own, and what other packages add to it.

Others add with an entry point of their distribution, which is loaded when its name or its class
is first looked up,

    [project.entry-points."recall_arena.mixers"]
    decay = "my_package.decay:Decay"

or, once their module is imported, by assignment: MIXERS["decay"] = Decay().
"""

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from recall_arena.names import package_of, unknown

T = TypeVar("T")

NAME = re.compile(r"[A-Za-z][\w.-]*")
LOADING = (ImportError, AttributeError, SyntaxError, ValueError, TypeError)
"""What an entry point may raise that leads to nothing, or to something that does not belong."""


class Registry(dict[str, T]):
    """Values by name, as far as they are loaded; `find` and `names_of` load what is missing.

    noun   what its values are, such as "mixer"
    group  that of the entry points
    check  gives what is kept of an added value, by (name, value); ValueError where it cannot be
           one
    own    this package's values, which nobody replaces

    Every class has one name from outside, so that whatever is written has one spelling.
    """

    def __init__(
        self, noun: str, group: str, check: Callable[[str, object], T], own: Mapping[str, T]
    ) -> None:
        super().__init__(own)
        self.noun, self.group, self.check, self.own = noun, group, check, frozenset(own)

    def __setitem__(self, name: str, value: T) -> None:
        """Raises ValueError for what `check` refuses, a name that is taken, or no name."""
        if not NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name of a {self.noun}: letters, digits, _, . and -")
        if name in self.own:
            raise ValueError(f"recall-arena has a {self.noun} {name!r} of its own")
        checked = self.check(name, value)
        others = [other for other in self._called(kind_of(checked)) if other != name]
        if others:
            raise ValueError(f"{kind_of(checked).__name__} is called {others[0]!r}, got {name!r}")
        super().__setitem__(name, checked)

    def names(self) -> list[str]:
        """The names of all values, also of those that are not loaded."""
        return [*self, *sorted({point.name for point in self._points()} - self.keys())]

    def find(self, name: str) -> T:
        """The value of this name; ValueError if there is none, or it cannot be loaded."""
        if name in self:
            return self[name]
        points = {point.value: point for point in self._points() if point.name == name}
        if not points:
            raise ValueError(unknown(self.noun, name, self.names()))
        if len(points) > 1:
            raise ValueError(
                f"{self.noun} {name!r} is one of several packages: {', '.join(points)}"
            )
        for point in points.values():
            self._load(point)
        return self[name]

    def names_of(self, kind: type) -> list[str]:
        """The names of values of this class.  Raises ValueError if it has none."""
        if not self._called(kind):
            package = package_of(kind.__module__)
            for point in self._points():
                if package_of(point.module) == package:
                    with suppress(ValueError):  # another one of that package
                        self.find(point.name)
        names = self._called(kind)
        if not names:
            raise ValueError(
                f"{kind.__name__} has no name: an entry point of {self.group} gives it one, or "
                f"{self.noun.upper()}S[...] = ..."
            )
        return names

    def added(self, kinds: Iterable[type]) -> dict[str, T]:
        """What other packages added of these classes, by name."""
        wanted = set(kinds)
        return {n: v for n, v in self.items() if n not in self.own and kind_of(v) in wanted}

    def _called(self, kind: type) -> list[str]:
        return [name for name, value in self.items() if kind_of(value) is kind]

    def _points(self) -> list[EntryPoint]:
        return list(entry_points(group=self.group))

    def _load(self, point: EntryPoint) -> None:
        try:
            self[point.name] = point.load()
        except LOADING as error:
            raise ValueError(
                f"{self.noun} {point.name!r}: the entry point {point.value} cannot be used "
                f"({type(error).__name__}: {error})"
            ) from None


def kind_of(value: Any) -> type:
    """A value's class, or the value where it is one itself."""
    return value if isinstance(value, type) else type(value)
