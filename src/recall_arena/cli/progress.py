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


def follow(events: Iterator[Event], names: Mapping[str, str], *, quiet: bool) -> list[Failed]:
    """Consume an executor's events while showing them; the runs that failed."""
    failed = []
    display = Bars(names) if news.is_terminal and not quiet else Lines(names, quiet)
    with display:
        for event in events:
            if isinstance(event, Advanced):
                display.advance(event)
                continue
            if isinstance(event, Noted):
                errors(f"{names[event.address]}: {event.text}")
                continue
            if isinstance(event, Busy):  # it comes up again
                continue
            if isinstance(event, Failed):
                failed.append(event)
                errors(f"{names[event.address]} failed: {event.reason}")
            display.end(event.address)
    return failed


def describe(progress: RunProgress) -> str:
    """Where a run stands, in a few words."""
    if progress.tested:
        return f"testing {progress.tested:.0%}"
    return f"{progress.step:,} of {progress.steps:,}, accuracy {progress.accuracy:.1%}"


class Lines(AbstractContextManager["Lines"]):
    """A plain line now and then."""

    def __init__(self, names: Mapping[str, str], quiet: bool) -> None:
        self.names, self.quiet = names, quiet
        self.ended = 0
        self.active: dict[str, RunProgress] = {}
        self.last = time.monotonic()

    def advance(self, event: Advanced) -> None:
        self.active[event.address] = event.progress
        if time.monotonic() - self.last >= SECONDS_BETWEEN_LINES:
            self._line()

    def end(self, address: str) -> None:
        self.active.pop(address, None)
        self.ended += 1

    def _line(self) -> None:
        self.last = time.monotonic()
        if not self.quiet:
            runs = "; ".join(f"{self.names[a]}: {describe(p)}" for a, p in self.active.items())
            tell(f"{self.ended} of {len(self.names)} runs done; {runs}")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self.quiet:
            tell(f"{self.ended} of {len(self.names)} runs done")


class Bars(AbstractContextManager["Bars"]):
    """A bar for all runs together, and one for each that is under way."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self.names = names
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            console=news,
        )
        self.all = self.progress.add_task("runs", total=len(names), state=f"0 of {len(names)}")
        self.ended = 0
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

    def end(self, address: str) -> None:
        self.ended += 1
        self.progress.update(
            self.all, completed=self.ended, state=f"{self.ended} of {len(self.names)}"
        )
        if address in self.bars:
            self.progress.remove_task(self.bars.pop(address))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.progress.stop()
