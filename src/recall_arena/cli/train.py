"""`recall train`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from recall_arena.cli import options, stores
from recall_arena.cli.console import say_json
from recall_arena.cli.described import Described
from recall_arena.cli.executing import How
from recall_arena.cli.outcome import finish_and_show


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
        run = self.planned()
        stores.to_write(self.store)  # found in a dry run too
        if self.dry_run:
            say_json(run.to_json())
            return 0
        return finish_and_show(
            *(run, self.model, self.store, self.how),
            keep_weights=self.keep_weights,
            as_json=self.json,
        )
