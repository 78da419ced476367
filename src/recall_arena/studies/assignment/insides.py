"""What happens inside a run of Problem 1, as the numbers that `why.py` judges.  Needs torch."""

import polars as pl
import torch

from recall_arena import atomic, mechanism, probes
from recall_arena.inspection import inspect
from recall_arena.model import SequenceModel
from recall_arena.probes import Sequences
from recall_arena.records import Record, Store, weights_path
from recall_arena.runs import run_of
from recall_arena.studies.assignment import why
from recall_arena.studies.assignment.runs import assignment_runs
from recall_arena.studies.study import Plan
from recall_arena.tasks import AssociativeRecall
from recall_arena.trained import with_weights

REACH = 3
"""Tokens that a convolution of four positions sees before its own."""


def explain(plan: Plan, store: Store) -> tuple[int, int]:
    """Look into the finished runs of a plan's first problem; how many were, and how many could not.

    Writes a row a run to the file that the report takes them from, beside rows of other runs that
    are there.  A run without a record is left out; one whose weights the store does not keep counts
    as one that could not.
    """
    addresses = [named.run.address for named in assignment_runs(plan)]
    records = [record for record in store.read_all(addresses) if record.run["task"]["queries"] == 1]
    kept = [one for one in records if weights_path(store.folder, one.address).exists()]
    rows = [{"address": record.address} | insides_of(store, record) for record in kept]
    own = pl.DataFrame(rows, schema=why.measured().schema)
    others = why.measured().join(own, on="address", how="anti")
    table = pl.concat([others, own]).sort("address")
    atomic.write(why.FILE, table.write_csv(float_precision=4).encode(), replace=True)
    return len(kept), len(records) - len(kept)


def insides_of(store: Store, record: Record) -> dict[str, float | None]:
    """The columns of `why.MEASURED` of a run whose weights the store keeps.

    Raises ValueError for weights that are damaged, of another run, or not finite.
    """
    run = run_of(record)
    model, _ = with_weights(store.folder, run, record)
    assert isinstance(run.task, AssociativeRecall)
    return insides(model.eval(), run.task, run.schedule.context)


def insides(model: SequenceModel, task: AssociativeRecall, context: int) -> dict[str, float | None]:
    """The columns of `why.MEASURED` of any model of the task, trained at this context length.

    followed        of right answers, those that follow where the value is exchanged
    previous        mean weight `delay` tokens back in the first of two or more attention layers
    value_on_query  there, the weight of the value's position on the query's
    on_value        weight of the final query on the value in the last attention layer
    ..._3L          the same at three times the length
    entered         the largest attribution of a position, of what enters the last attention layer,
                    or the last layer of a model that has none
    entered_after   how many tokens that position stands after the value; None for the last position
    written         of what Delta or beta exceeds its least by, at offsets from -2 to delay + 8, the
                    part at the value and three tokens after it; of the layer where it is largest
    after_value     of wrong answers, those that are the token after the value
    short_wrong     wrong answers at an eighth of the length, at least the shortest that there is
    short_query     of those, answers that are the query itself
    """
    asked = Sequences.of(task, context, why.SEQUENCES)
    answered = probes.answers(model, asked)
    bound = probes.rebinding(model, asked, answered)
    short = Sequences.of(task, max(context // 8, task.shortest_context), why.SEQUENCES)
    at_short = probes.answers(model, short)
    wrong = int((at_short != short.value).sum())
    layers = _attention_layers(model, asked)
    here = _attention(model, asked, layers)
    beyond = _attention(model, Sequences.of(task, 3 * context, why.LONG), layers)
    return {
        "followed": _share(bound["follow"], bound["asked"]),
        **here,
        **{f"{name}_3L": weight for name, weight in beyond.items()},
        **_entered(model, asked, max(layers, default=len(model.layers) - 1)),
        "written": _written(model, asked),
        "after_value": _of_errors(probes.errors(asked, answered), "the token after the value"),
        "short_wrong": _share(wrong, len(short.tokens)),
        "short_query": _of_errors(probes.errors(short, at_short), "the query itself"),
    }


def _attention_layers(model: SequenceModel, asked: Sequences) -> list[int]:
    with torch.inference_mode():
        layers = inspect(model, asked.tokens[:1])
    return [number for number, inner in enumerate(layers) if "weights" in inner]


def _attention(
    model: SequenceModel, asked: Sequences, layers: list[int]
) -> dict[str, float | None]:
    """What the first attention layer looks at, and what the final query does in the last."""
    looked, lags = mechanism.looked_at(model, asked), mechanism.lags(model, asked)
    two = len(layers) > 1
    return {
        "previous": _weight(lags, layers[0], "lag", asked.delay) if two else None,
        "value_on_query": _value_on_query(model, asked, layers[0]) if two else None,
        "on_value": _weight(looked, layers[-1], "offset", asked.delay) if layers else None,
    }


def _value_on_query(model: SequenceModel, asked: Sequences, layer: int) -> float:
    total = 0.0
    for part in asked.split():
        with torch.inference_mode():
            weights = inspect(model, part.tokens)[layer]["weights"].mean(dim=1)
        rows = torch.arange(len(part.tokens))
        total += float(weights[rows, part.first + part.delay, part.first].sum())
    return total / len(asked.tokens)


def _weight(table: pl.DataFrame, layer: int, along: str, place: int) -> float:
    return float(table.filter(layer=layer).filter(pl.col(along) == place)["weight"].item())


def _entered(model: SequenceModel, asked: Sequences, layer: int) -> dict[str, float | None]:
    places = mechanism.attribution(model, asked, layer).drop_nulls("attribution")
    most = places.sort("attribution", descending=True).head(1)
    if most.is_empty():
        return {"entered": None, "entered_after": None}
    offset, share = most.select("offset", "attribution").row(0)
    return {
        "entered": share,
        "entered_after": None if offset is None else float(offset - asked.delay),
    }


def _written(model: SequenceModel, asked: Sequences) -> float | None:
    table = mechanism.written(model, asked)
    near = pl.col("offset").is_between(asked.delay, asked.delay + REACH)
    rise = pl.col("weight") - pl.col("weight").min()
    shares = table.group_by("layer").agg(share=rise.filter(near).sum() / rise.sum())["share"]
    return None if shares.is_empty() else float(shares.max())  # type: ignore[arg-type]


def _of_errors(errors: pl.DataFrame, kind: str) -> float | None:
    return _share(errors.filter(answer=kind)["number"].item(), int(errors["number"].sum()))


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
