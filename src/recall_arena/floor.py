"""What a reader of associative recall gets that ignores order: below this no recall is shown.

It answers q if q stands twice in the context, and else the most frequent of the other tokens.
With v = q (once in K draws) it is right.  Otherwise the N = context - 1 tokens beside q are
uniform on K - 1 of them and the value stands anywhere among them, so that it is right with
probability E[max count] / N.  Neither M nor tau matters.
"""

from functools import cache

import numpy as np
from scipy.special import gammaln, xlogy


@cache
def order_free(vocabulary: int, longest: int) -> tuple[float, ...]:
    """Its accuracy at contexts 2, 3, ... longest, exactly.

    P(max count <= m) is the coefficient of x^N in (sum_{j <= m} x^j / j!)^(K - 1), divided by that
    of e^(x (K - 1)); Poisson weights keep both near one.
    """
    others = vocabulary - 1
    counts = np.arange(longest)  # N = 0, 1, ... longest - 1
    mean = longest / (2 * others)
    all_ways = _poisson(counts, mean * others)
    expected = np.zeros(longest)
    for most in range(longest):
        few = _poisson(counts, mean) * (counts <= most)
        ways = np.eye(1, longest)[0]
        for _ in range(others):
            ways = np.convolve(ways, few)[:longest]
        beyond = 1 - ways / all_ways  # P(max > most), and E[max] is their sum
        expected += beyond
        if beyond.max() < 1e-12:
            break
    right = 1 / vocabulary + (1 - 1 / vocabulary) * expected[1:] / counts[1:]
    return tuple(right.tolist())


def _poisson(counts: np.ndarray, mean: float) -> np.ndarray:
    """The probabilities of counts, as `scipy.stats` has them, which takes a second to import."""
    weights: np.ndarray = np.exp(xlogy(counts, mean) - gammaln(counts + 1) - mean)
    return weights
