"""The flags that describe a run, for the commands that train."""

from collections.abc import Sequence
from dataclasses import dataclass, field, make_dataclass
from typing import Annotated

import tyro

from recall_arena.cli import options
from recall_arena.cli.command import Command, Mistake
from recall_arena.cli.contexts import checked_contexts
from recall_arena.cli.importing import values_of
from recall_arena.cli.model_flags import ModelFlags, with_flags, with_given
from recall_arena.evaluation import Contexts
from recall_arena.memory import check_memory
from recall_arena.records import check_run
from recall_arena.runs import Checks, Run
from recall_arena.spec import of_layers, read_model
from recall_arena.tasks import TASKS, AssociativeRecall
from recall_arena.training import Schedule


@dataclass(frozen=True)
class Described(Command):
    """Everything that decides an outcome."""

    model: Annotated[
        str,
        tyro.conf.arg(
            help="a name such as hybrid-a, or mixers such as 'mamba(state=32), attention'; "
            "`recall models` lists all with their options, `--model NAME --help` has flags for them"
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
    imports: options.Imports = ()
    of_model: Annotated[ModelFlags, tyro.conf.arg(name="")] = field(default_factory=ModelFlags)

    @classmethod
    def spelled(cls, words: Sequence[str]) -> type[Command]:
        """With the flags of the task that `--task` names, and of the model's mixers."""
        names = values_of("--task", words)
        return with_flags(cls.on(names[-1]) if names else cls, words)

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

    def planned(self) -> Run:
        """The run that the flags describe; raises Mistake where there can be none."""
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
            layers, settings = read_model(self.model)
            chosen = with_given(layers, self.of_model)
            settings |= self.of_model.given("model")
            model = of_layers(chosen, settings, **sizes, longest_context=longest)
            run = Run(self.task, model, self.schedule, self.checks, contexts, self.seed)
            check_run(run.to_json())
            check_memory(run)
            return run
        except ValueError as error:
            raise Mistake(str(error)) from None
