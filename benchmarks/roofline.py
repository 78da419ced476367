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
FLOAT, TOKEN = 4, 8  # bytes


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

    def __add__(self, other: "Work") -> "Work":
        return Work(
            self.exponentials + other.exponentials,
            self.multiply_adds + other.multiply_adds,
            self.bytes + other.bytes,
        )

    def floor(self, peaks: Peaks, cores: int = 1) -> float:
        """The seconds that this takes at least."""
        arithmetic = (
            self.exponentials / peaks.exponentials + self.multiply_adds / peaks.multiply_adds
        )
        return max(arithmetic, self.bytes / peaks.bytes) / cores


Passes = dict[str, Work]
"""A kernel's work in its forward and in its backward pass."""


def scan_work(
    batch: int, length: int, channels: int, state: int, read: int | None = None
) -> Passes:
    """The selective scan with gate and softplus, of which `read` rows are read, or all.

    Forward, for each number of the state: exp(delta A); the product with A, the recurrence, the
    drive's product with B, the readout.  For each position and channel: softplus, which takes an
    exponential and a logarithm as long as one; the gate's sigmoid; D and three products.
    Backward repeats the states and adds, for each: the readout's gradient into the state and
    into C, the drive's into B and into delta u, the decay times the gradient, its product with
    the state before, and from there delta and A; with the sums over channels, nine.
    """
    channel = batch * length * channels
    channel_read = channel if read is None else read * channels
    each, unread = channel * state, (channel - channel_read) * state
    exponentials = each + 2 * channel + channel_read
    moved = FLOAT * (2 * channel + 2 * channel_read)
    moved_back = FLOAT * (4 * channel + 3 * channel_read)
    selections = FLOAT * 2 * batch * length * state
    return {
        "forward": Work(
            exponentials, 4 * each - unread + channel + 3 * channel_read, moved + selections
        ),
        "backward": Work(
            exponentials, 12 * each - 2 * unread + 12 * channel, moved_back + 2 * selections
        ),
    }


def conv_work(batch: int, length: int, channels: int, window: int) -> Passes:
    """The causal convolution with SiLU; backward repeats it, then convolves twice more."""
    each = batch * length * channels
    return {
        "forward": Work(each, (window + 2) * each, FLOAT * 2 * each),
        "backward": Work(each, (3 * window + 4) * each, FLOAT * 3 * each),
    }


def short_conv_work(batch: int, length: int, width: int, window: int) -> Passes:
    """A causal convolution without SiLU or bias; backward convolves twice."""
    each = batch * length * width
    return {
        "forward": Work(0, window * each, FLOAT * 2 * each),
        "backward": Work(0, 2 * window * each, FLOAT * 3 * each),
    }


def attention_work(
    batch: int, heads: int, length: int, head_width: int, queries: int | None = None
) -> Passes:
    """Causal attention: only the cells whose key is not later than the query.

    `queries` of the last positions ask, or all do.
    """
    asking = length if queries is None else queries
    cells = batch * heads * asking * (2 * length - asking + 1) // 2
    tensor = FLOAT * batch * heads * length * head_width
    return {
        "forward": Work(cells, 2 * head_width * cells, 4 * tensor),
        "backward": Work(cells, 5 * head_width * cells, 8 * tensor),
    }


def gated_delta_work(
    batch: int, length: int, heads: int, key_width: int, value_width: int, read: int | None = None
) -> Passes:
    """The gated delta rule with a decay for each head, of which `read` rows are read, or all.

    Forward, for each number of the state: its decay, what it holds for the key, what is written,
    and the readout.  Backward repeats decay and writing, and adds, for each: the readout's
    gradient into the state and into q, the written value's and the key's from there, the
    prediction's back into the state and into the key, the decay's own, and the decay of all that.
    """
    rows = batch * length
    rows_read = rows if read is None else read
    each, unread = heads * key_width * value_width, rows - rows_read
    vectors = FLOAT * heads * (2 * key_width + value_width)
    numbers = FLOAT * heads * 2 * rows
    outputs = FLOAT * heads * value_width * rows_read
    return {
        "forward": Work(
            heads * rows, each * (4 * rows - unread), vectors * rows + numbers + outputs
        ),
        "backward": Work(
            heads * rows, each * (10 * rows - 2 * unread), 2 * (vectors * rows + numbers) + outputs
        ),
    }


def product_work(rows: int, terms: int, columns: int) -> Passes:
    """A linear map of rows; backward multiplies for the input's gradient and the weight's."""
    products, moved = rows * terms * columns, FLOAT * rows * (terms + columns)
    return {
        "forward": Work(0, products, moved),
        "backward": Work(0, 2 * products, 2 * moved),
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
