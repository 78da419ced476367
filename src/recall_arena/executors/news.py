"""What a run tells from another machine: a small file in a folder that both machines reach."""

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from recall_arena import atomic
from recall_arena.execution import Progress
from recall_arena.executors.events import Advanced, Busy, Event, Failed, Finished, Noted

SECONDS_BETWEEN_NEWS = 2.0


@dataclass(frozen=True)
class News:
    """All that there is to know of a run: where it stands, what was noted, whether it failed."""

    progress: Progress | None = None
    noted: tuple[str, ...] = ()
    failed: str | None = None


class Teller:
    """Writes the events of one run after another to their files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._address, self._news, self._next = "", News(), 0.0

    def tell(self, event: Event) -> None:
        """Write the event down, unless it says no more than another of a moment ago.

        Where nothing can be written the run is nonetheless at work.
        """
        if event.address != self._address:
            self._address, self._news, self._next = event.address, News(), 0.0
        news, now = self._news, time.monotonic()
        match event:
            case Advanced(_, progress):
                self._news = News(progress, news.noted)
                if now < self._next:
                    return
            case Noted(_, text):
                self._news = News(news.progress, (*news.noted, text))
            case Failed(_, reason):
                self._news = News(news.progress, news.noted, reason)
            case Finished() | Busy():  # the record tells the first, and the second is no news
                return
        self._next = now + SECONDS_BETWEEN_NEWS
        with suppress(OSError):
            content = json.dumps(asdict(self._news)).encode()
            atomic.write(_place(self._folder, event.address), content, replace=True)


@dataclass
class Reader:
    """Reads what tellers write."""

    _seen: dict[str, News] = field(default_factory=dict)

    def read(self, folder: Path, address: str) -> Iterator[Event]:
        """What has been told of a run since the last time; a failure is the last of it."""
        try:
            values = json.loads(_place(folder, address).read_bytes())
            progress = values["progress"]
            news = News(progress and Progress(**progress), tuple(values["noted"]), values["failed"])
        except (OSError, ValueError, LookupError, TypeError):  # not yet, or of another version
            return
        before = self._seen.get(address, News())
        self._seen[address] = news
        yield from (Noted(address, text) for text in news.noted[len(before.noted) :])
        if news.progress is not None and news.progress != before.progress:
            yield Advanced(address, news.progress)
        if news.failed is not None:
            yield Failed(address, news.failed)


def _place(folder: Path, address: str) -> Path:
    return folder / f"{address}.news"
