"""Intervals: what a count says about the share behind it."""

from functools import cache
from math import hypot

from scipy.stats import binomtest


@cache
def wilson(correct: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """The Wilson score interval (Wilson 1927) of correct / total, both in 0..1."""
    interval = binomtest(correct, total).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


@cache
def exact(count: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """The interval of Clopper & Pearson (1934) of count / total, for shares of few runs."""
    interval = binomtest(count, total).proportion_ci(confidence, method="exact")
    return float(interval.low), float(interval.high)


def difference(left: tuple[int, int], right: tuple[int, int]) -> tuple[float, float]:
    """The 95 % interval of left's share less right's (Newcombe 1998, method 10): (count, total)."""
    (low, high), (other_low, other_high) = wilson(*left), wilson(*right)
    share, other = left[0] / left[1], right[0] / right[1]
    between = share - other
    return (
        between - hypot(share - low, other_high - other),
        between + hypot(high - share, other - other_low),
    )
