"""Intervals: what a count says about the share behind it."""

from functools import cache
from math import hypot, sqrt
from statistics import NormalDist


@cache
def wilson(correct: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """The Wilson score interval (Wilson 1927) of correct / total, both in 0..1."""
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = correct / total
    middle = (2 * correct + z**2) / (2 * (total + z**2))
    half = z * sqrt(4 * correct * (1 - share) + z**2) / (2 * (total + z**2))
    return middle - half if correct else 0.0, middle + half if correct < total else 1.0


@cache
def exact(count: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """The interval of Clopper & Pearson (1934) of count / total, for shares of few runs."""
    from scipy.special import betaincinv  # here, for most commands need no scipy

    tail, other = (1 - confidence) / 2, total - count
    low = betaincinv(count, other + 1, tail) if count else 0.0
    high = betaincinv(count + 1, other, 1 - tail) if other else 1.0
    return float(low), float(high)


def difference(left: tuple[int, int], right: tuple[int, int]) -> tuple[float, float]:
    """The 95 % interval of left's share less right's (Newcombe 1998, method 10): (count, total)."""
    (low, high), (other_low, other_high) = wilson(*left), wilson(*right)
    share, other = left[0] / left[1], right[0] / right[1]
    between = share - other
    return (
        between - hypot(share - low, other_high - other),
        between + hypot(high - share, other - other_low),
    )
