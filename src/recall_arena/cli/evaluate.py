"""`recall evaluate`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import tyro

from recall_arena.cli import options
from recall_arena.cli.accuracy import accuracy_rows, say_accuracy
from recall_arena.cli.command import Command, Mistake
from recall_arena.cli.console import say_json
from recall_arena.cli.contexts import checked_contexts
from recall_arena.cli.trained import run_named, trained_model
from recall_arena.compiled import Compiled
from recall_arena.evaluation import Contexts, accuracy_by_context
from recall_arena.layouts import load_pretrained
from recall_arena.model import SequenceModel
from recall_arena.monitor import tally
from recall_arena.records import Record
from recall_arena.runs import Run


@dataclass(frozen=True)
class Evaluate(Command):
    """Test a model that `recall train` trained, at any context lengths; nothing is kept."""

    address: options.Address
    contexts: Contexts = field(default_factory=Contexts)
    lengths: options.Lengths = ""
    weights: Annotated[
        Path | None,
        tyro.conf.arg(
            help="test this model instead, a folder of transformers' Mamba or of mamba-ssm"
        ),
    ] = None
    threads: Annotated[int, tyro.conf.arg(help="threads at work")] = 1
    imports: options.Imports = ()
    store: options.StoreFolder = Path("runs")
    json: options.Json = False

    def run(self) -> int:
        options.check_threads(self.threads)
        run, record = run_named(self.store, self.address)
        contexts = checked_contexts(self.contexts, self.lengths, run.task)
        model = self._model(run, record)
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

    def _model(self, run: Run, record: Record) -> SequenceModel:
        if self.weights is None:
            return trained_model(self.store, run, record)
        try:
            model = load_pretrained(self.weights)
        except ValueError as error:
            raise Mistake(str(error)) from None
        known, asked = model.spec.vocabulary, run.model.vocabulary
        if known < asked:
            raise Mistake(f"{self.weights} knows {known} tokens, the run's model {asked}")
        return model
