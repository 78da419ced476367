"""The elementary functions of native/math.hpp, each alone, per instruction set, against float64.

The bounds are those that the functions state.
"""

import ctypes
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from kernel_checks import needs_kernels
from scipy.special import ndtr

from recall_arena.kernels import native

Numbers = npt.NDArray[np.float32]
Exact = npt.NDArray[np.float64]

SMALLEST = float(np.finfo(np.float32).tiny)
COUNT = 100_003

pytestmark = [needs_kernels, pytest.mark.usefixtures("instruction_set")]


def sigmoid(x: Exact) -> Exact:
    return np.exp(-np.logaddexp(0, -x))


def silu(x: Exact) -> Exact:
    return x * sigmoid(x)


def silu_slope(x: Exact) -> Exact:
    return sigmoid(x) * (1 + x * sigmoid(-x))


def gelu(x: Exact) -> Exact:
    return x * ndtr(x)


def gelu_slope(x: Exact) -> Exact:
    return ndtr(x) + x * np.exp(-x * x / 2) / np.sqrt(2 * np.pi)


def near_exp(x: Exact) -> Exact:
    return 2.5e-7 + 8e-8 * np.abs(x)


def near_sigmoid(x: Exact) -> Exact:
    return 3e-7 + 8e-8 * np.maximum(-x, 0)


FUNCTIONS: dict[str, tuple[Callable[[Exact], Exact], tuple[float, float], object]] = {
    "sqrt": (np.sqrt, (SMALLEST, 3e38), 6e-8),
    "reciprocal": (np.reciprocal, (SMALLEST, 8e37), 1.2e-7),
    "exp2": (np.exp2, (-126, 127.999), 2e-7),
    "exp2_bounded": (np.exp2, (-126, 127.999), 2e-7),
    "exp": (np.exp, (-87.33, 88.72), near_exp),
    "sigmoid": (sigmoid, (-87, 3e38), near_sigmoid),
    "softplus": (lambda x: np.logaddexp(0, x), (-87.33, 3e38), near_sigmoid),
    "silu": (silu, (-87, 3e38), lambda x: 4e-7 + 8e-8 * np.maximum(-x, 0)),
    "silu_slope": (silu_slope, (-87, 3e38), lambda x: 1.2e-6 / np.abs(silu_slope(x))),
    "gelu": (gelu, (-12.5, 3e38), lambda x: 6e-7 + 1.2e-7 * np.minimum(x, 0) ** 2),
    "gelu_slope": (gelu_slope, (-12.5, 3e38), lambda x: 6e-7 / np.abs(gelu_slope(x))),
    "softplus_slope": (sigmoid, (-87.33, 3e38), near_sigmoid),
}
"""For each name: the function, the range of its bound, and the bound on its relative error."""


def called(name: str, x: Numbers) -> Numbers:
    y = np.full_like(x, 7)
    write(name, x, y)
    return y


def write(name: str, x: Numbers, y: Numbers) -> None:
    """Put what the function gives for `x` at the start of `y`."""
    assert native.LIBRARY is not None
    pointers = (ctypes.c_void_p(each.ctypes.data) for each in (x, y))
    known = native.LIBRARY.recall_elementary(name.encode(), *pointers, ctypes.c_int64(x.size))
    assert known == 0, name


def at(name: str, *x: float) -> list[float]:
    """What the function gives for these numbers, subnormal ones as zero."""
    y = called(name, np.array(x, np.float32))
    return np.where(np.abs(y) < SMALLEST, 0, y).tolist()


def over(low: float, high: float) -> Numbers:
    """Numbers of every size between two, the ends and zero's surroundings among them."""
    sizes = np.geomspace(SMALLEST, max(abs(low), abs(high)), COUNT)
    x = np.concatenate([[low, high], np.linspace(low, min(high, 200), COUNT), sizes, -sizes])
    x = x.astype(np.float32)
    return x[(x >= np.float32(low)) & (x <= np.float32(high)) & (np.abs(x) >= SMALLEST)]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_keeps_its_error_bound_over_its_whole_range(name):
    function, (low, high), bound = FUNCTIONS[name]
    x = over(low, high)
    exact = function(x.astype(np.float64))
    off = np.abs(called(name, x) - exact) / np.abs(exact)
    allowed = bound(x.astype(np.float64)) if callable(bound) else bound
    assert (off <= np.where(np.abs(exact) < SMALLEST, 1, allowed)).all(), x[np.argmax(off)]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_nan_gives_nan_in_its_lane_alone(name):
    for lane in range(19):
        x = np.ones(19, np.float32)
        x[lane] = np.nan
        assert np.isnan(called(name, x)).tolist() == np.isnan(x).tolist()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_number_beyond_the_last_is_written(name):
    for count in range(1, 18):
        y = np.full(count + 16, 7, np.float32)
        write(name, np.full(count, 0.5, np.float32), y)
        assert np.unique(y[:count]).size == 1, count
        assert (y[:count] != 7).all(), count
        assert (y[count:] == 7).all(), count


def test_what_overflows_is_infinite_and_what_underflows_is_zero():
    inf = float("inf")
    above = (128, 128.4, 129, 1000, 3e38, inf)
    below = (-127, -127.6, -128, -150, -1000, -3e38, -inf)
    assert at("exp2", *above) == [inf] * len(above)
    assert at("exp2", *below) == at("exp2_bounded", *below) == [0] * len(below)
    assert at("exp2_bounded", 128) == [inf]
    assert at("exp", 88.73, 100, 3e38, inf) == [inf] * 4
    assert at("exp", -88.1, -100, -3e38, -inf) == [0] * 4
    assert at("softplus", -100, -inf, 100, inf) == [0, 0, 100, inf]
    assert at("softplus_slope", -100, -inf, 100, inf) == [0, 0, 1, 1]
    assert at("sqrt", 0, inf) == [0, inf]
    assert np.isnan(at("sqrt", -1, -inf)).all()


def test_a_power_of_two_is_exact():
    whole = np.arange(-126, 128)
    assert at("exp2", *whole) == at("exp2_bounded", *whole) == np.exp2(whole.astype(float)).tolist()


def test_the_sigmoid_stops_falling_where_its_reciprocal_would_leave_the_range():
    assert at("sigmoid", float("inf"), 200) == [1, 1]
    floor = at("sigmoid", -87)
    assert at("sigmoid", -88, -3e38, -float("inf")) == floor * 3
    assert 1.6e-38 < floor[0] < 1.7e-38


def test_an_unknown_function_is_refused():
    assert native.LIBRARY.recall_elementary(b"tan", None, None, ctypes.c_int64(0)) == 1
