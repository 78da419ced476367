"""Which cases of a product of parameters stand in the default suite, and which are slow.

Models, shapes and instruction sets need not meet in full whenever something was changed.  A test
that is marked `one_in(n)` has the cases of which the places of the parameters sum to a multiple
of n, as the diagonals of a Latin square: each value meets several of each other's, and no two
neighbours meet the same ones.  A value that would be left out brings its first case.  The other
cases are marked slow, so `make test-slow` runs the rest of the product.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import pytest

Case = tuple[int, ...]  # the place of each parameter's value among those that it has


def mark_slow_cases(items: Iterable[pytest.Item]) -> None:
    """Mark the cases that `one_in` leaves out slow."""
    products: dict[str, list[pytest.Function]] = defaultdict(list)
    for item in items:
        if isinstance(item, pytest.Function) and item.get_closest_marker("one_in"):
            products[f"{item.path}::{item.originalname}"].append(item)
    for product in products.values():
        mark = product[0].get_closest_marker("one_in")
        assert mark is not None
        kept = covering(cases_of(product), *mark.args)
        for place, item in enumerate(product):
            if place not in kept:
                item.add_marker(pytest.mark.slow)


def covering(product: Sequence[Case], n: int) -> set[int]:
    """The places in a product of about one in n of its cases, which have every value."""
    kept = {place for place, case in enumerate(product) if sum(case) % n == 0}
    covered = {value for place in kept for value in enumerate(product[place])}
    for place, case in enumerate(product):
        if not covered.issuperset(enumerate(case)):
            kept.add(place)
            covered.update(enumerate(case))
    return kept


def cases_of(items: Sequence[pytest.Function]) -> list[Case]:
    """The cases of one test, in the order of its items."""
    places: dict[tuple[str, ...], dict[tuple[int, ...], int]] = defaultdict(dict)
    cases = []
    for item in items:
        case = []
        for names in _parameters(item):
            value = tuple(id(item.callspec.params[name]) for name in names)
            case.append(places[names].setdefault(value, len(places[names])))
        cases.append(tuple(case))
    return cases


def _parameters(item: pytest.Function) -> list[tuple[str, ...]]:
    """The names of a test's parameters; those that are given together count as one."""
    together: list[tuple[str, ...]] = []
    for mark in item.iter_markers("parametrize"):
        given = mark.args[0]
        split = [name.strip() for name in given.split(",")] if isinstance(given, str) else given
        together.append(tuple(split))
    by_tests = {name for names in together for name in names}
    return together + [(name,) for name in item.callspec.params if name not in by_tests]
