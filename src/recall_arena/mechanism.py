"""How a trained model recalls: where the value enters a layer, what attention looks at, what is
written to a state.

A position is told by its offset from the query's first appearance: 0 is the query, `delay` its
value.  Each table has a row for each layer and offset, with a mean over the sequences.
"""

from collections.abc import Callable, Iterator, Mapping

import polars as pl
import torch
from torch import Tensor

from recall_arena.inspection import inspect
from recall_arena.model import SequenceModel
from recall_arena.probes import Sequences

BEYOND = 8
"""Offsets after the value that are looked at."""

LAGS = 9
"""How far back attention is followed at every position: 0 is the position itself."""

WRITING = ("Delta", "beta")
"""How much a position writes, as Mamba and the gated delta rule name it."""


def attribution(model: SequenceModel, asked: Sequences, layer: int) -> pl.DataFrame:
    """Through which position the value reaches a layer: columns offset, attribution, sequences.

    [p(y; x from s) - p(y | b)] / [p(y | s) - p(y | b)], numerator and denominator each summed over
    sequences: b is a sequence, s the same with another value y, and x, the layer's input at that
    offset, is patched into b (arXiv:2505.15105, an interchange intervention, also known as
    activation patching).  The offset of the final query is null.
    """
    offsets = [*range(asked.delay + BEYOND + 1), None]
    moved, whole, counted = (dict.fromkeys(offsets, 0.0) for _ in range(3))
    for base in asked.split():
        source, every = base.rebound(), torch.ones_like(base.first, dtype=torch.bool)
        at_end = (torch.full_like(base.first, base.tokens.shape[1] - 1), every)
        with torch.inference_mode():
            here, there = (_through(model, model.embed(s.tokens), 0, layer) for s in (base, source))
            low, high = (_probability(model, x, layer, source.value) for x in (here, there))
            for offset in offsets:
                place, counts = at_end if offset is None else base.places(offset)
                mixed = _interchanged(here, there, place)
                gain = _probability(model, mixed, layer, source.value) - low
                moved[offset] += float(gain[counts].sum())
                whole[offset] += float((high - low)[counts].sum())
                counted[offset] += int(counts.sum())
    shares = [moved[offset] / whole[offset] if whole[offset] else None for offset in offsets]
    return pl.DataFrame(
        {"offset": offsets, "attribution": shares, "sequences": [int(n) for n in counted.values()]},
        schema={"offset": pl.Int64, "attribution": pl.Float64, "sequences": pl.Int64},
    )


def _through(model: SequenceModel, x: Tensor, begin: int, end: int | None) -> Tensor:
    """What the layers from `begin` to `end` make of what the first of them is given."""
    for layer in model.layers[begin:end]:
        x = layer(x)
    return x


def _probability(model: SequenceModel, x: Tensor, layer: int, token: Tensor) -> Tensor:
    """How likely each sequence's token is, if `layer` is given x."""
    read = model.lm_head(model.norm_f(_through(model, x, layer, None)[:, -1]))
    return read.softmax(dim=1).gather(1, token[:, None])[:, 0]


def _interchanged(here: Tensor, there: Tensor, place: Tensor) -> Tensor:
    rows = torch.arange(len(here))
    mixed = here.clone()
    mixed[rows, place] = there[rows, place]
    return mixed


def looked_at(model: SequenceModel, asked: Sequences) -> pl.DataFrame:
    """What the final query attends to: columns layer, offset and weight, means over heads too."""
    return _profile(model, asked, {"weights": lambda weights: weights.mean(dim=1)[:, -1]})


def lags(model: SequenceModel, asked: Sequences) -> pl.DataFrame:
    """What every position attends to: columns layer, lag (how far back) and weight.

    Means over heads, sequences and all positions that have so many before them.
    """
    sums: dict[tuple[int, int], float] = {}
    for part, layers in _inside(model, asked):
        share = len(part.tokens) / len(asked.tokens)
        for number, inner in enumerate(layers):
            if "weights" in inner:
                for lag in range(min(LAGS, part.tokens.shape[1])):
                    seen = inner["weights"].diagonal(-lag, dim1=2, dim2=3)
                    key = (number, lag)
                    sums[key] = sums.get(key, 0.0) + share * float(seen.mean())
    rows = [(*key, weight) for key, weight in sorted(sums.items())]
    return pl.DataFrame(rows, schema=["layer", "lag", "weight"], orient="row")


def written(model: SequenceModel, asked: Sequences) -> pl.DataFrame:
    """How much each position writes to a state: columns layer, offset and weight.

    Mamba's Delta or the gated delta rule's beta, means over channels or heads.
    """
    return _profile(
        model, asked, dict.fromkeys(WRITING, lambda amount: amount.flatten(2).mean(dim=2))
    )


def _inside(
    model: SequenceModel, asked: Sequences
) -> Iterator[tuple[Sequences, list[dict[str, Tensor]]]]:
    for part in asked.split():
        with torch.inference_mode():
            yield part, inspect(model, part.tokens)


def _profile(
    model: SequenceModel, asked: Sequences, of: Mapping[str, Callable[[Tensor], Tensor]]
) -> pl.DataFrame:
    """Means of a layer's inner tensors, made to (batch, length), by the offset from the query."""
    sums: dict[tuple[int, int], list[float]] = {}
    for part, layers in _inside(model, asked):
        for number, inner in enumerate(layers):
            for name in of.keys() & inner.keys():
                amount = of[name](inner[name])
                for offset in range(-2, part.delay + BEYOND + 1):
                    place, there = part.places(offset)
                    found = amount.gather(1, place[:, None])[:, 0][there]
                    total = sums.setdefault((number, offset), [0.0, 0.0])
                    total[0] += float(found.sum())
                    total[1] += len(found)
    rows = [(*key, up / down) for key, (up, down) in sorted(sums.items()) if down]
    schema = {"layer": pl.Int64, "offset": pl.Int64, "weight": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")
