"""Ctrl-C and other signals, put off while something must not be left half done.

A handler that raises between the birth of a process and the sending of its task leaves a child
that reads the end of a file where its task should be, and says so with a traceback; one that raises
within a training step leaves nothing to go on from.
"""

import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

_NAMES = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2")  # a cluster gives notice by the last two
SIGNALS = tuple(signal.Signals[name] for name in _NAMES if name in signal.Signals.__members__)


@contextmanager
def deferred() -> Iterator[None]:
    """The first of these signals takes effect when the block is over, a second one at once."""
    if threading.current_thread() is not threading.main_thread():  # no other thread gets signals
        yield
        return
    arrived: list[signal.Signals] = []
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    before = {n: handler for n, handler in handlers.items() if handler is not None}  # not from C

    def remember(number: int, frame: FrameType | None) -> None:
        arrived.append(signal.Signals(number))
        _handle_with(before)

    try:
        _handle_with(dict.fromkeys(before, remember))
        yield
    finally:
        _handle_with(before)
        for number in arrived:
            handler = before[number]
            if callable(handler):  # raised again it might not arrive: Ray's workers block SIGINT
                handler(number, None)
            else:
                signal.raise_signal(number)


@contextmanager
def interrupts_blocked() -> Iterator[None]:
    """SIGINT waits; a process that is started in the block, and its children, never get it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _handle_with(handlers: "Mapping[signal.Signals, signal._HANDLER]") -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)
