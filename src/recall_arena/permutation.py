"""Tests that move runs between groups: exact where that is possible, and free of any shape."""

from collections.abc import Mapping, Sequence
from math import factorial, prod
from typing import Any

import numpy as np

RESAMPLES = 9_999
"""Permutations drawn, seeded; where there are fewer, each is counted once and p is exact."""


def rank_test(first: Sequence[float], second: Sequence[float]) -> tuple[float, float]:
    """How much higher the first group ranks on average, and the two-sided p of that.

    Ties, infinite values among them, have their mean rank (Wilcoxon's rank sum test).  A group
    of a single run tests nothing: p is then 1.
    """
    ranks = _ranks([*first, *second])
    if min(len(first), len(second)) < 2:
        return float(ranks[: len(first)].mean() - ranks[len(first) :].mean()), 1.0

    def higher(one: np.ndarray, other: np.ndarray, axis: int) -> Any:
        return one.mean(axis=axis) - other.mean(axis=axis)

    from scipy.stats import permutation_test  # here, for it takes a second to import

    found = permutation_test(
        (ranks[: len(first)], ranks[len(first) :]),
        higher,
        vectorized=True,
        n_resamples=RESAMPLES,
        random_state=0,
    )
    return float(found.statistic), float(found.pvalue)


def trend_test(groups: Sequence[int], values: Sequence[float]) -> tuple[float, float]:
    """The trend of values over groups in -1..1, and its two-sided p.

    The statistic of Jonckheere (1954) and Terpstra (1952): pairs of runs of different groups that
    are in order, less those in reverse order, divided by their number.
    """
    from scipy.stats import permutation_test

    order = np.argsort(groups, kind="stable")
    levels, ranks = np.asarray(groups)[order], _ranks(values)[order]
    early, late = np.nonzero(levels[:, None] < levels)

    def trend(permuted: np.ndarray, axis: int) -> Any:
        return np.sign(permuted[..., late] - permuted[..., early]).mean(axis=axis)

    found = permutation_test(
        (ranks,),
        trend,
        permutation_type="pairings",
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=200,
        random_state=0,
    )
    return float(found.statistic), float(found.pvalue)


def _ranks(values: Sequence[float]) -> np.ndarray:
    """Each value's place from 1 on, and for ties the mean of theirs."""
    _, place, times = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    ranks: np.ndarray = (np.cumsum(times) - (times - 1) / 2)[place]
    return ranks


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
