"""`recall train`."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import Annotated

import tyro

from recall_arena.cli import options, stores
from recall_arena.cli.accuracy import accuracy_rows, say_accuracy
from recall_arena.cli.command import Command, Mistake
from recall_arena.cli.console import say, say_json
from recall_arena.cli.contexts import checked_contexts
from recall_arena.cli.importing import values_of
from recall_arena.cli.progress import follow
from recall_arena.evaluation import Contexts
from recall_arena.executors import execute_all
from recall_arena.model import named
from recall_arena.records import Record, weights_path
from recall_arena.runs import Checks, Run
from recall_arena.tasks import TASKS, AssociativeRecall
from recall_arena.training import Schedule


@dataclass(frozen=True)
class Train(Command):
    """Train one model, show its accuracy by context length, keep its record and its weights."""

    model: Annotated[
        str,
        tyro.conf.arg(
            help="a name such as hybrid-a, or mixers such as 'mamba(state=32), attention'; "
            "`recall models` lists all, with their options"
        ),
    ] = "mamba"
    width: Annotated[int, tyro.conf.arg(help="d, the numbers in an embedding")] = 8
    kind: Annotated[
        str,
        tyro.conf.arg(
            name="task", help=f"{', '.join(TASKS.names())}; `--task NAME --help` explains it"
        ),
    ] = "associative-recall"
    task: Annotated[
        AssociativeRecall, tyro.conf.arg(help="associative recall: what stood after the query?")
    ] = field(default_factory=AssociativeRecall)
    schedule: Schedule = field(default_factory=lambda: Schedule(rate=1e-2, steps=10_000))
    checks: Checks = field(default_factory=Checks)
    contexts: Contexts = field(default_factory=Contexts)
    lengths: options.Lengths = ""
    seed: Annotated[int, tyro.conf.arg(help="decides weights and batches")] = 0
    threads: Annotated[int, tyro.conf.arg(help="threads of the run")] = 1
    keep_weights: Annotated[
        bool,
        tyro.conf.arg(
            help="forgo the weights, which `recall evaluate` needs",
            help_behavior_hint="(default: they are kept)",
        ),
    ] = True
    imports: options.Imports = ()
    store: options.StoreFolder = Path("runs")
    dry_run: options.DryRun = False
    json: options.Json = False
    quiet: options.Quiet = False

    @classmethod
    def spelled(cls, words: Sequence[str]) -> type[Command]:
        """With the flags of the task that `--task` names."""
        names = values_of("--task", words)
        return cls.on(names[-1]) if names else cls

    @classmethod
    def on(cls, name: str) -> type[Command]:
        """The command with the flags of one of the tasks; raises Mistake for an unknown one."""
        try:
            kind = TASKS.find(name)
        except ValueError as error:
            raise Mistake(str(error)) from None
        about = (kind.__doc__ or name).splitlines()[0]
        task = ("task", Annotated[kind, tyro.conf.arg(help=about)], field(default_factory=kind))
        made = make_dataclass(cls.__name__, [task], bases=(cls,), frozen=True)
        made.__doc__ = cls.__doc__
        return made

    def run(self) -> int:
        run, store = self._planned(), stores.to_write(self.store)
        if self.dry_run:
            say_json(run.to_json())
            return 0
        stores.prepare(self.store)
        if run.address in store:
            store.read(run.address)  # a damaged record is found before anything is trained
        events = execute_all([run], store, threads=self.threads, keep_weights=self.keep_weights)
        with closing(events):
            if follow(events, {run.address: self.model}, quiet=self.quiet):
                return 1
        self._show(store.read(run.address))
        return 0

    def _planned(self) -> Run:
        if self.threads < 1:
            raise Mistake(f"--threads must be at least 1, got {self.threads}")
        shortest = self.task.shortest_context
        if self.schedule.context < shortest:
            raise Mistake(
                f"--schedule.context must be at least {shortest} with this task, "
                f"got {self.schedule.context}"
            )
        contexts = checked_contexts(self.contexts, self.lengths, self.task)
        longest = max(contexts.longest, self.schedule.context)
        sizes = {"width": self.width, "vocabulary": self.task.vocabulary}
        try:
            self.schedule.course(self.task)
            model = named(self.model, **sizes, longest_context=longest)
            return Run(self.task, model, self.schedule, self.checks, contexts, self.seed)
        except ValueError as error:
            raise Mistake(str(error)) from None

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
