"""`recall train`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from recall_arena.cli import options, stores
from recall_arena.cli.accuracy import accuracy_rows, say_accuracy
from recall_arena.cli.console import say, say_json
from recall_arena.cli.described import Described
from recall_arena.cli.executing import finish
from recall_arena.records import Record, weights_path


@dataclass(frozen=True)
class Train(Described):
    """Train one model, show its accuracy by context length, keep its record and its weights."""

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
    quiet: options.Quiet = False

    def run(self) -> int:
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
            jobs=1,
            threads=self.threads,
            keep_weights=self.keep_weights,
            quiet=self.quiet,
        )
        if failed:
            return 1
        self._show(store.read(run.address))
        return 0

    def _show(self, record: Record) -> None:
        outcome = record.outcome
        path = weights_path(self.store, record.address) if self.keep_weights else None
        if self.json:
            say_json(
                {
                    "address": record.address,
                    "ended_by": outcome.ended_by,
                    "steps": outcome.steps,
                    "solved_at": outcome.solved_at,
                    "weights": None if path is None else str(path),
                    "accuracy": accuracy_rows(outcome.contexts),
                }
            )
            return
        say_accuracy(outcome.contexts, trained=self.schedule.context)
        solved = "" if outcome.solved_at is None else f", solved at {outcome.solved_at:,}"
        say(
            f"{outcome.steps:,} steps, ended by {outcome.ended_by}{solved}; "
            f"{record.cost.parameters:,} parameters; {record.cost.training_seconds:.0f} s"
        )
        say(f"record {record.address}" + ("" if path is None else f"; weights {path}"))
