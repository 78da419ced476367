"""How fast could a kernel be?  Its least work, divided by what this core is measured to do.

The floor is the larger of two times: that of the arithmetic, and that of moving each input and
output once.  Exponentials and multiply-adds need the same execution ports, so their times add.
Counted is what any implementation must do, so the floor says nothing about one way to do it:
no copies, no saved states, no loads and stores between registers and caches.
"""

import ctypes
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from benchmarks.measuring import Unavailable

SOURCE = Path(__file__).with_name("peaks.cpp")
FLOAT = 4  # bytes


@dataclass(frozen=True)
class Peaks:
    """What a core does in a second, at most; bytes depend on how many are worked on."""

    exponentials: float
    multiply_adds: float
    bytes: float


@dataclass(frozen=True)
class Work:
    """What a kernel must do."""

    exponentials: int
    multiply_adds: int
    bytes: int

    def floor(self, peaks: Peaks, cores: int = 1) -> float:
        """The seconds that this takes at least."""
        arithmetic = (
            self.exponentials / peaks.exponentials + self.multiply_adds / peaks.multiply_adds
        )
        return max(arithmetic, self.bytes / peaks.bytes) / cores


Passes = dict[str, Work]
"""A kernel's work in its forward and in its backward pass."""


def scan_work(batch: int, length: int, channels: int, state: int) -> Passes:
    """The selective scan with gate and softplus.

    Forward, for each number of the state: exp(delta A); the product with A, the recurrence, the
    drive's product with B, the readout.  For each position and channel: softplus, which takes an
    exponential and a logarithm as long as one; the gate's sigmoid; D and three products.
    Backward repeats the states and adds, for each: the readout's gradient into the state and
    into C, the drive's into B and into delta u, the decay times the gradient, its product with
    the state before, and from there delta and A; with the sums over channels, nine.
    """
    channel = batch * length * channels
    each = channel * state
    moved, selections = FLOAT * channel, FLOAT * 2 * batch * length * state
    return {
        "forward": Work(each + 3 * channel, 4 * each + 4 * channel, 4 * moved + selections),
        "backward": Work(each + 3 * channel, 12 * each + 12 * channel, 7 * moved + 2 * selections),
    }


def conv_work(batch: int, length: int, channels: int, window: int) -> Passes:
    """The causal convolution with SiLU; backward repeats it, then convolves twice more."""
    each = batch * length * channels
    return {
        "forward": Work(each, (window + 2) * each, FLOAT * 2 * each),
        "backward": Work(each, (3 * window + 4) * each, FLOAT * 3 * each),
    }


def attention_work(batch: int, heads: int, length: int, head_width: int) -> Passes:
    """Causal attention: only the cells whose key is not later than the query."""
    cells = batch * heads * length * (length + 1) // 2
    tensor = FLOAT * batch * heads * length * head_width
    return {
        "forward": Work(cells, 2 * head_width * cells, 4 * tensor),
        "backward": Work(cells, 5 * head_width * cells, 8 * tensor),
    }


def measured_peaks(working_set: int, seconds: float = 0.2) -> Peaks:
    """This core's peaks; those of bytes at a working set of so many of them.

    Raises Unavailable where there is no g++.
    """
    library = _library()
    return Peaks(
        exponentials=library.exponentials_per_second(ctypes.c_double(seconds)),
        multiply_adds=library.multiply_adds_per_second(ctypes.c_double(seconds)),
        bytes=library.bytes_per_second(ctypes.c_size_t(working_set), ctypes.c_double(seconds)),
    )


def exponential(x: float) -> float:
    """The function whose peak that of exponentials is; for checking it."""
    return float(_library().exponential_of(ctypes.c_float(x)))


@cache
def _library() -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder) / "peaks.so"
        command = ["g++", "-O3", "-march=native", "-shared", "-fPIC", str(SOURCE), "-o", str(built)]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except FileNotFoundError as error:
            raise Unavailable("g++ is not installed") from error
        except subprocess.CalledProcessError as error:
            raise Unavailable(f"g++ failed: {error.stderr.splitlines()[0]}") from error
        library = ctypes.CDLL(str(built))
    for name in ("exponentials_per_second", "multiply_adds_per_second", "bytes_per_second"):
        getattr(library, name).restype = ctypes.c_double
    library.exponential_of.restype = ctypes.c_float
    return library
