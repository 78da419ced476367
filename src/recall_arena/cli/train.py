"""`recall train`."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import tyro

from recall_arena.checkpoints import save_weights, weights_path
from recall_arena.cli import options
from recall_arena.cli.accuracy import accuracy_rows, say_accuracy
from recall_arena.cli.command import Command, Mistake
from recall_arena.cli.console import say, say_json
from recall_arena.cli.progress import follow
from recall_arena.evaluation import Contexts
from recall_arena.executors import Advanced, Event, Finished
from recall_arena.model import named
from recall_arena.records import Record, Store
from recall_arena.runs import Checks, Run, execute
from recall_arena.tasks import AssociativeRecall
from recall_arena.training import Schedule


@dataclass(frozen=True)
class Train(Command):
    """Train one model, show its accuracy by context length, keep its record and its weights."""

    model: Annotated[
        str, tyro.conf.arg(help="one of the assignment's models, or mixers such as mamba,attention")
    ] = "mamba"
    width: Annotated[int, tyro.conf.arg(help="d, the numbers in an embedding")] = 8
    task: AssociativeRecall = field(default_factory=AssociativeRecall)
    schedule: Schedule = field(default_factory=lambda: Schedule(rate=1e-2, steps=10_000))
    checks: Checks = field(default_factory=Checks)
    contexts: Contexts = field(default_factory=Contexts)
    seed: Annotated[int, tyro.conf.arg(help="decides weights and batches")] = 0
    threads: Annotated[int, tyro.conf.arg(help="threads of the run")] = 1
    store: options.StoreFolder = Path("runs")
    dry_run: options.DryRun = False
    json: options.Json = False
    quiet: options.Quiet = False

    def run(self) -> int:
        run, store = self._planned(), Store(self.store)
        if self.dry_run:
            say_json(run.to_json())
            return 0
        path = weights_path(self.store, run.address)
        if run.address not in store or not path.exists():
            torch.set_num_threads(self.threads)
            follow(_events(run, store, path), {run.address: self.model}, quiet=self.quiet)
        self._show(options.read(store, run.address), path)
        return 0

    def _planned(self) -> Run:
        if self.threads < 1:
            raise Mistake(f"--threads must be at least 1, got {self.threads}")
        if self.schedule.context < self.task.shortest_context:
            raise Mistake(
                f"--schedule.context must be at least {self.task.shortest_context} with this "
                "delay, "
                f"got {self.schedule.context}"
            )
        longest = max(self.contexts.last, self.schedule.context)
        try:
            model = named(
                self.model,
                vocabulary=self.task.vocabulary,
                width=self.width,
                longest_context=longest,
            )
        except ValueError as error:
            raise Mistake(str(error)) from None
        return Run(self.task, model, self.schedule, self.checks, self.contexts, self.seed)

    def _show(self, record: Record, path: Path) -> None:
        outcome = record.outcome
        if self.json:
            say_json(
                {
                    "address": record.address,
                    "ended_by": outcome.ended_by,
                    "steps": outcome.steps,
                    "solved_at": outcome.solved_at,
                    "weights": str(path),
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
        say(f"record {record.address}; weights {path}")


def _events(run: Run, store: Store, path: Path) -> Iterator[Event]:
    working = execute(run)
    while True:
        try:
            yield Advanced(run.address, next(working))
        except StopIteration as end:
            record, model = end.value
            save_weights(model, path)
            store.write(record)
            yield Finished(run.address)
            return
