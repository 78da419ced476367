"""`recall evaluate`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import tyro

from recall_arena.checkpoints import load_weights, weights_path
from recall_arena.cli import options
from recall_arena.cli.accuracy import accuracy_rows, say_accuracy
from recall_arena.cli.command import Command, Mistake
from recall_arena.cli.console import say_json
from recall_arena.evaluation import Contexts, accuracy_by_context
from recall_arena.records import Store
from recall_arena.runs import from_json, tally


@dataclass(frozen=True)
class Evaluate(Command):
    """Test a model that `recall train` trained, at any context lengths; nothing is kept."""

    address: Annotated[str, tyro.conf.Positional]
    contexts: Contexts = field(default_factory=Contexts)
    threads: Annotated[int, tyro.conf.arg(help="threads at work")] = 1
    store: options.StoreFolder = Path("runs")
    json: options.Json = False

    def run(self) -> int:
        record = options.record_named(Store(self.store), self.address)
        path = weights_path(self.store, record.address)
        if not path.exists():
            raise Mistake(
                f"the weights of {record.address} were not kept; `recall train` keeps them"
            )
        torch.set_num_threads(self.threads)
        run = from_json(record.run)
        try:
            rows = tally(
                list(accuracy_by_context(load_weights(run, path), run.task, self.contexts))
            )
        except ValueError as error:
            raise Mistake(str(error)) from None
        if self.json:
            say_json(accuracy_rows(rows))
        else:
            say_accuracy(rows, trained=run.schedule.context)
        return 0
