"""How runs get on, for people: bars on a terminal, otherwise a plain line every few seconds."""

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from types import TracebackType

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from recall_arena.cli.console import errors, news, tell
from recall_arena.execution import Progress as RunProgress
from recall_arena.executors import Advanced, Busy, Event, Failed, Noted

SECONDS_BETWEEN_LINES = 5.0


class Pace:
    """How many runs have ended, where the others stand, and how long the rest may take."""

    def __init__(self, runs: int) -> None:
        self.runs, self.ended = runs, 0
        self.active: dict[str, RunProgress] = {}
        self._begun = time.monotonic()
        self._first: dict[str, float] = {}  # a run that goes on from a snapshot did not begin at 0

    def advance(self, event: Advanced) -> None:
        self.active[event.address] = event.progress
        self._first.setdefault(event.address, _share(event.progress))

    def end(self, address: str) -> None:
        self.active.pop(address, None)
        self.ended += 1

    def __str__(self) -> str:
        """Such as "3 of 12 runs done, at most 4 min left"; at most, for a run may end early."""
        said = f"{self.ended} of {self.runs} runs done"
        done = self.ended + sum(map(_share, self.active.values()))
        worked = done - sum(self._first.values())
        if worked <= 0 or done >= self.runs:
            return said
        left = (time.monotonic() - self._begun) * (self.runs - done) / worked
        return f"{said}, at most {_duration(left)} left"


def _share(progress: RunProgress) -> float:
    """How much of a run is over, in 0..1."""
    return progress.tested or progress.step / progress.steps * 0.9


def _duration(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def follow(
    events: Iterator[Event], names: Mapping[str, str], *, quiet: bool, fail_fast: bool = False
) -> list[Failed]:
    """Consume an executor's events while showing them; the runs that failed.

    With `fail_fast` the first of them is the last event.
    """
    failed = []
    pace = Pace(len(names))
    display = Bars(names, pace) if news.is_terminal and not quiet else Lines(names, pace, quiet)
    with display:
        for event in events:
            if isinstance(event, Advanced):
                pace.advance(event)
                display.advance(event)
            elif isinstance(event, Noted):
                errors(f"{names[event.address]}: {event.text}")
            elif not isinstance(event, Busy):  # that one comes up again
                pace.end(event.address)
                display.end(event.address)
                if isinstance(event, Failed):
                    failed.append(event)
                    errors(f"{names[event.address]} failed: {event.reason}")
                    if fail_fast:
                        break
    return failed


def describe(progress: RunProgress) -> str:
    """Where a run stands, in a few words."""
    if progress.tested:
        return f"testing {progress.tested:.0%}"
    return f"{progress.step:,} of {progress.steps:,}, accuracy {progress.accuracy:.1%}"


class Lines(AbstractContextManager["Lines"]):
    """A plain line now and then."""

    def __init__(self, names: Mapping[str, str], pace: Pace, quiet: bool) -> None:
        self.names, self.pace, self.quiet = names, pace, quiet
        self.last = time.monotonic()

    def advance(self, event: Advanced) -> None:
        if time.monotonic() - self.last >= SECONDS_BETWEEN_LINES:
            self.last = time.monotonic()
            active = self.pace.active.items()
            runs = "; ".join(f"{self.names[a]}: {describe(p)}" for a, p in active)
            self._tell(f"{self.pace}; {runs}")

    def end(self, address: str) -> None:
        """The next line counts it."""

    def _tell(self, text: str) -> None:
        if not self.quiet:
            tell(text)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.pace.runs:
            self._tell(f"{self.pace.ended} of {self.pace.runs} runs done")


class Bars(AbstractContextManager["Bars"]):
    """A bar for all runs together, and one for each that is under way."""

    def __init__(self, names: Mapping[str, str], pace: Pace) -> None:
        self.names, self.pace = names, pace
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            console=news,
        )
        self.all = self.progress.add_task("runs", total=len(names), state=str(pace))
        self.bars: dict[str, TaskID] = {}

    def __enter__(self) -> "Bars":
        self.progress.start()
        return self

    def advance(self, event: Advanced) -> None:
        if event.address not in self.bars:
            self.bars[event.address] = self.progress.add_task(
                self.names[event.address], total=event.progress.steps, state=""
            )
        self.progress.update(
            self.bars[event.address],
            completed=event.progress.step,
            state=describe(event.progress),
        )
        self.progress.update(self.all, state=str(self.pace))

    def end(self, address: str) -> None:
        self.progress.update(self.all, completed=self.pace.ended, state=str(self.pace))
        if address in self.bars:
            self.progress.remove_task(self.bars.pop(address))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.progress.stop()
