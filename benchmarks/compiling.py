"""torch.compile as a contender: given up where it fails or takes too long."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType
from typing import Any

import torch

from benchmarks.measuring import Contender, Unavailable


class _TooSlow(BaseException):
    """Not an Exception, so that no layer of the compiler takes it for a graph break."""


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function for torch.compile, for the shapes that it is first called with."""
    torch.compiler.reset()
    return torch.compile(function, dynamic=False)


def within(limit: float, contender: Contender) -> Contender:
    """The contender after its first turn, in which it compiles.

    Raises Unavailable if that fails or takes more than `limit` seconds.
    """
    start = time.perf_counter()
    try:
        with _alarm(limit):
            contender.results()
    except _TooSlow:
        raise Unavailable(f"not compiled within {limit:g} s") from None
    except (RuntimeError, OSError) as error:  # what Dynamo, Inductor and a missing g++ raise
        reason = str(error).strip().splitlines()
        raise Unavailable(f"torch.compile failed: {reason[0] if reason else error!r}") from error
    return replace(contender, figures={"compile s": time.perf_counter() - start})


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    def ring(number: int, frame: FrameType | None) -> None:
        raise _TooSlow

    previous = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
