"""`recall runs rm`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from recall_arena.cli import options, stores
from recall_arena.cli.command import Command, Mistake
from recall_arena.cli.console import ask, say
from recall_arena.cli.listing import listed
from recall_arena.index import contents_of
from recall_arena.records import end_path, snapshot_path, weights_path


@dataclass(frozen=True)
class RunsRm(Command):
    """Remove records and their weights, after asking.  Archives are never changed."""

    addresses: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(help="the beginnings of addresses")
    ] = ()
    where: options.Where = ""
    yes: Annotated[bool, tyro.conf.arg(help="remove without asking")] = False
    imports: options.Imports = ()
    store: options.StoreFolder = Path("runs")

    def run(self) -> int:
        files = self._files()
        if not files:
            say(f"no such records in {self.store}")
            return 0
        if not self.yes and not ask(f"remove {len(files)} records from {self.store}?"):
            say("nothing was removed")
            return 0
        for path in files:
            for place in (weights_path, end_path, snapshot_path):
                place(self.store, path.stem).unlink(missing_ok=True)
            path.unlink(missing_ok=True)
        say(f"{len(files)} records removed from {self.store}")
        return 0

    def _files(self) -> list[Path]:
        """The files of the records that are meant, damaged ones too."""
        store = stores.opened(self.store)
        if not self.addresses and not self.where:
            raise Mistake("name records by their addresses, or by --where")
        named = {stores.address_named(store, address) for address in self.addresses}
        if self.where:
            named |= set(listed(contents_of(store), self.where)["address"])
        written = {path.stem: path for path in store.files()}
        if archived := named - written.keys():
            raise Mistake(f"{', '.join(sorted(archived))}: in an archive, which is never changed")
        files = [written[address] for address in sorted(named)]
        for path in files:
            if path.is_dir() and not path.is_symlink():
                raise Mistake(f"{path} is a folder, which no record is; remove it yourself")
        return files
