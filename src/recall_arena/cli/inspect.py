"""`recall inspect`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import polars as pl
import tyro
from matplotlib.figure import Figure
from torch import Tensor

from recall_arena import mechanism, probes
from recall_arena import mechanism_figures as figures
from recall_arena.canvas import save
from recall_arena.cli import options, stores
from recall_arena.cli.command import Command, Mistake
from recall_arena.cli.console import say, say_json, say_table
from recall_arena.cli.trained import run_named, trained_model
from recall_arena.inspection import inspect
from recall_arena.model import SequenceModel
from recall_arena.probes import Sequences
from recall_arena.tasks import AssociativeRecall

MOST_TOKENS = 1 << 22
"""Many times what a figure needs; states and weights of all positions take memory and time."""


@dataclass(frozen=True)
class Inspect(Command):
    """Look into a model that `recall train` trained on associative recall.

    Right answers by query and by distance, what wrong ones are, whether the model follows where the
    value is changed; through which position the value enters each layer, what attention looks at,
    what is written to states.  Figures and their data go to a folder.
    """

    address: options.Address
    context: Annotated[
        int | None, tyro.conf.arg(help="tokens before the query; the default is L")
    ] = None
    sequences: Annotated[int, tyro.conf.arg(help="test sequences to look at")] = 1000
    out: Annotated[Path, tyro.conf.arg(help="the folder of the figures and their data")] = Path(
        "inspected"
    )
    imports: options.Imports = ()
    store: options.StoreFolder = Path("runs")
    json: options.Json = False

    def run(self) -> int:
        run, record = run_named(self.store, self.address)
        task = run.task
        if not isinstance(task, AssociativeRecall):
            kind = record.run["task"]["kind"]
            raise Mistake(f"only runs of associative-recall can be inspected; this one is {kind}")
        model = trained_model(self.store, run, record).eval()
        asked = self._asked(task, run.schedule.context)
        try:
            answered = probes.answers(model, asked)
        except ValueError as error:  # learned positions do not reach so far
            raise Mistake(str(error)) from None
        stores.prepare(self.store, self.out)
        tables = _tables(model, asked, answered)
        for name, (figure, data) in _figures(model, asked, tables):
            save(figure, data, self.out / name)
        bound = probes.rebinding(model, asked, answered)
        if self.json:
            rows = {name: table.to_dicts() for name, table in tables.items()}
            say_json({"rebinding": bound, **rows, "figures": str(self.out)})
        else:
            self._say(asked, tables, bound)
        return 0

    def _asked(self, task: AssociativeRecall, trained: int) -> Sequences:
        context = trained if self.context is None else self.context
        if context < task.shortest_context:
            raise Mistake(f"--context must be at least {task.shortest_context}, got {context}")
        if task.vocabulary < 3:
            raise Mistake("values are changed to a third token; this run's vocabulary has only two")
        if self.sequences < 1:
            raise Mistake(f"--sequences must be at least 1, got {self.sequences}")
        if self.sequences * (context + 1) > MOST_TOKENS:
            raise Mistake(f"sequences and context together must be at most {MOST_TOKENS:,} tokens")
        asked = Sequences.of(task, context, self.sequences)
        if not len(asked.tokens):
            raise Mistake("in all of these sequences the value is the query; ask for more of them")
        return asked

    def _say(
        self, asked: Sequences, tables: dict[str, pl.DataFrame], bound: dict[str, int]
    ) -> None:
        queries = tables["queries"]
        right, number = queries["correct"].sum(), len(asked.tokens)
        say(f"{right:,} of {number:,} answers are right where the value is not the query")
        if queries.height > 1:
            say_table(queries.columns, queries.rows())
        if right < number:
            say("what wrong answers are")
            say_table(tables["errors"].columns, tables["errors"].rows())
        if bound["asked"]:
            say(
                f"where the value of a right answer is changed: {bound['follow']:,} follow to the "
                f"new one, {bound['stay']:,} stay, {bound['else']:,} do neither"
            )
        say(str(self.out))


def _tables(model: SequenceModel, asked: Sequences, answered: Tensor) -> dict[str, pl.DataFrame]:
    """Every table by its name; those of layers that a model lacks are empty."""
    layers = range(1, len(model.layers))
    enters = [
        mechanism.attribution(model, asked, layer).insert_column(0, pl.lit(layer).alias("layer"))
        for layer in layers
    ]
    return {
        "queries": probes.by_query(asked, answered),
        "distances": probes.by_distance(asked, answered),
        "errors": probes.errors(asked, answered),
        **({"attribution": pl.concat(enters)} if enters else {}),
        "attention": mechanism.looked_at(model, asked),
        "lags": mechanism.lags(model, asked),
        "written": mechanism.written(model, asked),
    }


def _figures(
    model: SequenceModel, asked: Sequences, tables: dict[str, pl.DataFrame]
) -> Iterator[tuple[str, tuple[Figure, pl.DataFrame]]]:
    yield "distances", figures.distances(tables["distances"])
    if "attribution" in tables:
        enters = (tables["attribution"], "attribution", "share of the value that enters")
        yield "attribution", figures.by_offset(*enters, asked.delay)
    for name, what in (("attention", "the final query's attention"), ("written", "Delta or beta")):
        if tables[name].height:
            yield name, figures.by_offset(tables[name], "weight", what, asked.delay)
    if tables["lags"].height:
        yield "lags", figures.by_lag(tables["lags"])
    for number, inner in enumerate(inspect(model, asked.tokens[:1])):
        if "weights" in inner:
            weights = inner["weights"][0].mean(dim=0).detach()
            yield f"map-layer{number}", figures.attention_map(weights, asked.tokens[0], number)
