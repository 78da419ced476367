"""`recall evaluate`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import tyro

from recall_arena.checkpoints import load_weights, weights_hash
from recall_arena.cli import options, stores
from recall_arena.cli.accuracy import accuracy_rows, say_accuracy
from recall_arena.cli.command import Command, Mistake
from recall_arena.cli.console import say_json, tell
from recall_arena.cli.contexts import checked_contexts
from recall_arena.compiled import Compiled
from recall_arena.evaluation import Contexts, accuracy_by_context
from recall_arena.model import SequenceModel
from recall_arena.records import weights_path
from recall_arena.runs import Run, build, run_of, tally


@dataclass(frozen=True)
class Evaluate(Command):
    """Test a model that `recall train` trained, at any context lengths; nothing is kept."""

    address: options.Address
    contexts: Contexts = field(default_factory=Contexts)
    lengths: options.Lengths = ""
    threads: Annotated[int, tyro.conf.arg(help="threads at work")] = 1
    imports: options.Imports = ()
    store: options.StoreFolder = Path("runs")
    json: options.Json = False

    def run(self) -> int:
        if self.threads < 1:
            raise Mistake(f"--threads must be at least 1, got {self.threads}")
        record = stores.record_named(self.store, self.address)
        try:
            run = run_of(record)
        except ValueError as error:
            raise Mistake(f"record {record.address} cannot be tested here ({error})") from None
        contexts = checked_contexts(self.contexts, self.lengths, run.task)
        model = self._trained(run, record.weights)
        torch.set_num_threads(self.threads)
        try:
            counts = list(accuracy_by_context(Compiled(model).logits, run.task, contexts))
        except ValueError as error:  # learned positions do not reach so far
            raise Mistake(str(error)) from None
        rows = tally(counts)
        if self.json:
            say_json(accuracy_rows(rows))
        else:
            say_accuracy(rows, trained=run.schedule.context)
        return 0

    def _trained(self, run: Run, recorded: str | None) -> SequenceModel:
        model = build(run)
        path = weights_path(self.store, run.address)
        try:
            checked = load_weights(model, path)
        except FileNotFoundError:
            raise Mistake(
                f"the weights of {run.address} were not kept; `recall train` keeps them"
            ) from None
        except ValueError as error:
            raise Mistake(f"{error}; delete it to train again") from None
        if not checked:
            tell(f"{path} holds no hash: an earlier version wrote it")
        elif recorded not in (None, weights_hash(model.state_dict())):
            tell(f"{path} is not, to the last bit, what the record tells of: it was trained anew")
        return model
