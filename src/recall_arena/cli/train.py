"""`recall train`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from recall_arena.cli import options, stores
from recall_arena.cli.console import say_json
from recall_arena.cli.described import Described
from recall_arena.cli.executing import How, finish
from recall_arena.cli.outcome import show_outcome
from recall_arena.records import weights_path


@dataclass(frozen=True)
class Train(Described):
    """Train one model, show its accuracy by context length, keep its record and its weights."""

    goes_on = True

    keep_weights: Annotated[
        bool,
        tyro.conf.arg(
            help="forgo the weights, which `recall evaluate` needs",
            help_behavior_hint="(default: they are kept)",
        ),
    ] = True
    store: options.StoreFolder = Path("runs")
    dry_run: options.DryRun = False
    json: options.Json = False
    how: Annotated[How, tyro.conf.arg(name="")] = field(default_factory=How)

    def run(self) -> int:
        self.how.check()
        run, store = self.planned(), stores.to_write(self.store)
        if self.dry_run:
            say_json(run.to_json())
            return 0
        stores.prepare(self.store)
        if run.address in store:
            store.read(run.address)  # a damaged record is found before anything is trained
        failed = finish(
            [run],
            {run.address: self.model},
            store,
            self.how,
            keep_weights=self.keep_weights,
        )
        if failed:
            return 1
        weights = weights_path(self.store, run.address) if self.keep_weights else None
        show_outcome(store.read(run.address), weights, as_json=self.json)
        return 0
