"""How long the compiled kernels are at work, counted while something else is timed."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import Structure
from dataclasses import dataclass
from unittest import mock

from recall_arena.kernels import native


@dataclass
class Kernels:
    """The seconds that calls of compiled kernels have taken so far."""

    seconds: float = 0.0


@contextmanager
def watched() -> Iterator[Kernels]:
    """Counts the kernels' time as long as this lasts, at less than a microsecond a call."""
    kernels, call = Kernels(), native.call

    def counted(name: str, arguments: Structure, workers: int) -> int:
        began = time.perf_counter()
        returned = call(name, arguments, workers)
        kernels.seconds += time.perf_counter() - began
        return returned

    with mock.patch.object(native, "call", counted):
        yield kernels
