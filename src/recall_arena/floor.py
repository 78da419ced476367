"""What a reader of associative recall gets that ignores order: below this no recall is shown.

It answers q if q stands twice in the context, and else the most frequent of the other tokens.
With v = q (once in K draws, if the task has it) it is right.  Otherwise the N = context - 1 tokens
beside q are uniform on K - 1 of them and the value stands anywhere among them, so that it is right
with probability E[max count] / N.  Neither M nor tau matters.
"""

from functools import cache

import numpy as np
from scipy.special import gammaln, xlogy


@cache
def order_free(vocabulary: int, context: int, *, repeats: bool = True) -> float:
    """Its accuracy at a context of that many tokens, at least 2; to about ten digits.

    `repeats` is whether the value may be the query.

    P(max count <= m) is the chance that K - 1 Poisson counts are N together and none above m, over
    that of being N together.  Their sum's distribution is a power of theirs after a Fourier
    transform, long enough that what wraps around is nothing.
    """
    others, asked = vocabulary - 1, context - 1
    mean = asked / others
    counts = np.arange(asked + 1)
    weights = _poisson(counts, mean)
    all_ways = _poisson(counts, float(asked))[asked]
    size = 1 << (3 * asked + 128).bit_length()
    least = -(-asked // others)  # some token stands so often
    expected = float(least)
    for most in range(least, asked):
        few = np.fft.rfft(weights[: most + 1], size)
        beyond = 1 - np.fft.irfft(few**others, size)[asked] / all_ways  # P(max > most)
        expected += beyond
        if beyond < 1e-10:
            break
    same = 1 / vocabulary if repeats else 0.0
    return float(same + (1 - same) * expected / asked)


def _poisson(counts: np.ndarray, mean: float) -> np.ndarray:
    """The probabilities of counts, as `scipy.stats` has them, which takes a second to import."""
    weights: np.ndarray = np.exp(xlogy(counts, mean) - gammaln(counts + 1) - mean)
    return weights
