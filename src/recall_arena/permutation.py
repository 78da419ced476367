"""Tests that move runs between groups: exact where that is possible, and free of any shape.

Orders are drawn, and p is counted, as `scipy.stats.permutation_test` does it: that draws anew for
every test, and takes a second to import.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import combinations, permutations
from math import comb, factorial, prod

import numpy as np

RESAMPLES = 9_999
"""Permutations drawn, seeded; where there are fewer, each is counted once and p is exact."""

AT_ONCE = 200
"""Permutations of which the pairs are compared at a time, for the sake of memory."""


def rank_test(first: Sequence[float], second: Sequence[float]) -> tuple[float, float]:
    """How much higher the first group ranks on average, and the two-sided p of that.

    Ties, infinite values among them, have their mean rank (Wilcoxon's rank sum test).  A group
    of a single run tests nothing: p is then 1.  The order within a group does not matter, though
    permutations are drawn.
    """
    ranks, size = _ranks([*sorted(first), *sorted(second)]), len(first)
    higher = float(ranks[:size].mean() - ranks[size:].mean())
    if min(size, len(second)) < 2:
        return higher, 1.0
    permuted = ranks[_groupings(size, len(second))]
    by_chance = permuted[:, :size].mean(axis=1) - permuted[:, size:].mean(axis=1)
    return higher, _two_sided(higher, by_chance)


def trend_test(groups: Sequence[int], values: Sequence[float]) -> tuple[float, float]:
    """The trend of values over groups in -1..1, and its two-sided p.

    The statistic of Jonckheere (1954) and Terpstra (1952): pairs of runs of different groups that
    are in order, less those in reverse order, divided by their number.  The order in which runs
    are given does not matter.
    """
    order = np.lexsort((values, groups))
    levels, ranks = np.asarray(groups)[order], _ranks(values)[order]
    early, late = np.nonzero(levels[:, None] < levels)

    def trend(permuted: np.ndarray) -> np.ndarray:
        found: np.ndarray = np.sign(permuted[..., late] - permuted[..., early]).mean(axis=-1)
        return found

    orders = _orders(len(ranks))
    parts = [trend(ranks[orders[at : at + AT_ONCE]]) for at in range(0, len(orders), AT_ONCE)]
    observed = float(trend(ranks[None])[0])
    return observed, _two_sided(observed, np.concatenate(parts))


def _ranks(values: Sequence[float]) -> np.ndarray:
    """Each value's place from 1 on, and for ties the mean of theirs."""
    _, place, times = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    ranks: np.ndarray = (np.cumsum(times) - (times - 1) / 2)[place]
    return ranks


@cache
def _groupings(first: int, second: int) -> np.ndarray:
    """Orders of so many runs, of which the first make the one group: each once, or drawn."""
    runs = range(first + second)
    if comb(len(runs), first) <= RESAMPLES:
        return np.array([[*c, *sorted({*runs} - {*c})] for c in combinations(runs, first)])
    draw = np.random.RandomState(0)  # by which published p were drawn
    return np.array([draw.permutation(len(runs)) for _ in range(RESAMPLES)])


@cache
def _orders(runs: int) -> np.ndarray:
    """Orders of so many runs: each once, or drawn."""
    if factorial(runs) <= RESAMPLES:
        return np.array([*permutations(range(runs))])
    drawn: np.ndarray = np.random.RandomState(0).random((RESAMPLES, runs))
    return drawn.argsort(axis=1)


def _two_sided(observed: float, by_chance: np.ndarray) -> float:
    """The share of orders that are at least so extreme, the observed one among those drawn."""
    near = 100 * np.finfo(float).eps * abs(observed)  # equal, but for rounding
    tails = (by_chance <= observed + near).sum(), (by_chance >= observed - near).sum()
    own = int(len(by_chance) == RESAMPLES)  # fewer are all that there are
    return min(1.0, 2 * float(min(tails) + own) / (len(by_chance) + own))


def smallest_p(*sizes: int) -> float:
    """The smallest two-sided p that groups of so many runs allow, whatever the runs find."""
    arrangements = factorial(sum(sizes)) // prod(map(factorial, sizes))
    return min(1.0, 2 / min(arrangements, RESAMPLES + 1))


def holm(tests: Mapping[str, float]) -> dict[str, float]:
    """Each test's p, adjusted for their number (Holm 1979).

    If a test counts where its adjusted p is at most 5 %, the chance that any counts whose null
    hypothesis is true is at most 5 %.
    """
    adjusted, last = {}, 0.0
    for before, name in enumerate(sorted(tests, key=tests.__getitem__)):
        adjusted[name] = last = max(last, min(1.0, (len(tests) - before) * tests[name]))
    return adjusted
