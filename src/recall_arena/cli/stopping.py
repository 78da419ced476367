"""How a command ends that is told to: 130 after Ctrl-C (SIGINT), 143 after SIGTERM."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

WORDS = {signal.SIGINT: "stopped", signal.SIGTERM: "terminated"}


class Stopped(BaseException):
    """A signal arrived; what is under way is given up, and the exit code is `code`."""

    def __init__(self, number: int) -> None:
        super().__init__(WORDS[signal.Signals(number)])
        self.code = 128 + number


@contextmanager
def handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Have a handler for both signals; one that is ignored, as in a background job, stays so."""
    heard = [number for number in WORDS if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in heard}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def end_cleanly(number: int, frame: FrameType | None) -> None:
    """Raise Stopped; the next signal then ends the process at once."""
    for heard in WORDS:
        if signal.getsignal(heard) == end_cleanly:
            signal.signal(heard, end_at_once)
    raise Stopped(number)


def end_at_once(number: int, frame: FrameType | None) -> None:
    """End the process, for where an exception would be lost or too late: imports, and the end."""
    os.write(2, f"recall: {WORDS[signal.Signals(number)]}\n".encode())
    os._exit(128 + number)
