"""Intervals of accuracy: what a count of right answers says about the share behind it."""

from functools import cache

from scipy.stats import binomtest


@cache
def wilson(correct: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """The Wilson score interval (Wilson 1927) of correct / total, both in 0..1."""
    interval = binomtest(correct, total).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)
