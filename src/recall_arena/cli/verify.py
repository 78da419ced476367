"""`recall verify`."""

import random
from collections.abc import Generator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro

from recall_arena.cli import options, stores
from recall_arena.cli.command import Command, Mistake
from recall_arena.cli.console import say, say_json, tell
from recall_arena.cli.progress import follow
from recall_arena.executors import Advanced, Event, Failed, Finished
from recall_arena.executors.here import FAILURES
from recall_arena.records import DamagedRecord, Record, Store
from recall_arena.verification import Verdict, obstacle, verify


@dataclass(frozen=True)
class Verify(Command):
    """Train records' runs again and compare: bit for bit where the platform is the same.

    Elsewhere, where sums round differently, the first check and all that training does not decide
    are compared.  The code is 1 if a record differs or cannot be read.
    """

    addresses: Annotated[
        tuple[str, ...],
        tyro.conf.Positional,
        tyro.conf.arg(help="the beginnings of addresses; none means all records"),
    ] = ()
    sample: Annotated[int | None, tyro.conf.arg(help="only so many, drawn at random")] = None
    longest: Annotated[float, tyro.conf.arg(help="only runs trained in so many seconds")] = float(
        "inf"
    )
    imports: options.Imports = ()
    store: options.StoreFolder = Path("runs")
    json: options.Json = False
    quiet: options.Quiet = False

    def run(self) -> int:
        if self.sample is not None and self.sample < 1:
            raise Mistake(f"--sample must be at least 1, got {self.sample}")
        store = stores.opened(self.store)
        records, damaged = self._named(store) if self.addresses else self._all(store)
        if self.sample is not None:
            records = random.Random().sample(records, min(self.sample, len(records)))
        verdicts: list[Verdict] = []
        with closing(_verified(records, verdicts)) as events:
            names = {one.address: one.address for one in records}
            failed = follow(events, names, quiet=self.quiet)
        if self.json:
            say_json([asdict(one) for one in verdicts])
        for one in () if self.json else verdicts:
            say(f"{one.address} {one.kind}" + (f": {one.reason}" if one.reason else ""))
        bad = failed or any(one.kind == "differs" for one in verdicts)
        return stores.tell_damaged(damaged) or (1 if bad else 0)

    def _named(self, store: Store) -> tuple[list[Record], list[DamagedRecord]]:
        addresses = [stores.address_named(store, address) for address in self.addresses]
        records = [store.read(address) for address in dict.fromkeys(addresses)]
        for record in records:
            if (why := obstacle(record)) is not None:
                raise Mistake(f"record {record.address} cannot be made again: {why}")
        return records, []

    def _all(self, store: Store) -> tuple[list[Record], list[DamagedRecord]]:
        found = list(store.scan())  # the records themselves, never the index
        every = [one for one in found if isinstance(one, Record)]
        sound = [one for one in every if obstacle(one) is None]
        if len(sound) < len(every):
            tell(f"{len(every) - len(sound)} of {len(every)} records are of other versions")
        short = [one for one in sound if one.cost.training_seconds <= self.longest]
        if not short:
            raise Mistake(f"no records in {self.store} that can be made again")
        return short, [one for one in found if isinstance(one, DamagedRecord)]


def _verified(records: list[Record], verdicts: list[Verdict]) -> Generator[Event, None, None]:
    """What happens while records are made again; what comes of it is added to the verdicts."""
    for record in records:
        working = verify(record)
        while True:
            try:
                progress = next(working)
            except StopIteration as end:
                verdicts.append(end.value)
                yield Finished(record.address)
                break
            except FAILURES as error:
                yield Failed(record.address, f"{type(error).__name__}: {error}")
                break
            yield Advanced(record.address, progress)
