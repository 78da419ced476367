"""`recall extend`."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro

from recall_arena.cli import options
from recall_arena.cli.command import Command, Mistake
from recall_arena.cli.console import say_json
from recall_arena.cli.contexts import checked_contexts
from recall_arena.cli.executing import How
from recall_arena.cli.outcome import finish_and_show
from recall_arena.cli.trained import run_named
from recall_arena.evaluation import Contexts
from recall_arena.memory import check_memory
from recall_arena.runs import Run


@dataclass(frozen=True)
class Extend(Command):
    """Train a finished run further, or test it at other lengths: a new run, with its own record.

    It goes on from what the first one came to, where that was kept (as `recall train` does), and
    else takes its steps again.  Its record says which run it extends.
    """

    goes_on = True

    address: options.Address
    steps: Annotated[int | None, tyro.conf.arg(help="the budget, the steps so far included")] = None
    decay: Annotated[
        float | None,
        tyro.conf.arg(help="the share of the budget over which the rate falls; else as it was"),
    ] = None
    lengths: options.Lengths = ""
    imports: options.Imports = ()
    store: options.StoreFolder = Path("runs")
    dry_run: options.DryRun = False
    json: options.Json = False
    how: Annotated[How, tyro.conf.arg(name="")] = field(default_factory=How)

    def run(self) -> int:
        run = self._extended(run_named(self.store, self.address)[0])
        if self.dry_run:
            say_json(run.to_json())
            return 0
        return finish_and_show(
            *(run, f"{self.address}, extended", self.store, self.how),
            keep_weights=True,
            as_json=self.json,
        )

    def _extended(self, origin: Run) -> Run:
        if self.steps is None and not self.lengths:
            raise Mistake("say how far: --steps, or --contexts to test it at")
        self.how.check()
        contexts = origin.contexts
        if self.lengths:
            tested = Contexts(sequences=contexts.sequences)
            contexts = checked_contexts(tested, self.lengths, origin.task)
        reach = origin.model.max_length
        if reach is not None and contexts.longest >= reach:
            raise Mistake(f"learned positions reach {reach - 1} tokens before the query")
        schedule = origin.schedule
        steps = schedule.steps if self.steps is None else self.steps
        try:
            schedule = replace(schedule, steps=steps)
            if self.decay is not None:  # a share of the budget, whatever the fall was before
                schedule = replace(schedule, decay=self.decay, decay_steps=None)
            run = replace(origin, schedule=schedule, contexts=contexts, extends=origin)
            check_memory(run)
            return run
        except ValueError as error:
            raise Mistake(str(error)) from None
