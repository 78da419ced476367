"""The least work of a whole training step, for its floor in `roofline.py`."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from benchmarks.roofline import (
    TOKEN,
    Passes,
    Work,
    attention_work,
    conv_work,
    gated_delta_work,
    product_work,
    scan_work,
    short_conv_work,
)
from recall_arena.mixers import Attention, GatedDelta, Mamba, MixerOptions
from recall_arena.mixers.mamba import usual_rank
from recall_arena.model import ModelSpec


def step_work(spec: ModelSpec, batch: int, length: int) -> Work:
    """A training step's mixers, of which the last one's output is read at one position alone.

    Without positions, the first one's input has no more distinct rows than there are tokens, and
    needs no gradient of its own.  Left out are norms, readout, loss and update: the floor is a
    little too low.  Of the memory only the tokens count, for the rest need not leave the caches.
    Raises ValueError for a mixer whose work nobody has counted.
    """
    passes: list[Passes] = []
    rows = batch * length
    for index, options in enumerate(spec.mixers):
        few = index == 0 and spec.positions == "none"
        distinct = min(rows, spec.vocabulary) if few else rows
        read = rows if index + 1 < len(spec.layers) else batch
        passes += _mixer_passes(options)(spec.width, (batch, length), distinct, read)
    total = sum((work for each in passes for work in each.values()), Work(0, 0, 0))
    return replace(total, bytes=TOKEN * rows)


MixerPasses = Callable[[int, tuple[int, int], int, int], list[Passes]]


def _mixer_passes(options: MixerOptions) -> MixerPasses:
    match options:
        case Mamba():
            return partial(_mamba_passes, options)
        case Attention():
            return partial(_attention_passes, options)
        case GatedDelta():
            return _gated_delta_passes
        case _:
            raise ValueError(f"nobody has counted the work of {options}")


def _mamba_passes(
    options: Mamba, width: int, sequences: tuple[int, int], distinct: int, read: int
) -> list[Passes]:
    """Of one Mamba mixer; where few positions are read, few have a gate."""
    (batch, length), rows = sequences, sequences[0] * sequences[1]
    channels, state, rank = options.expand * width, options.state, options.rank or usual_rank(width)
    return [
        product_work(distinct, width, channels),
        product_work(min(distinct, read), width, channels),
        conv_work(batch, length, channels, options.window),
        product_work(rows, channels, rank + 2 * state),
        product_work(rows, rank, channels),
        scan_work(batch, length, channels, state, read),
        product_work(read, channels, width),
    ]


def _attention_passes(
    options: Attention, width: int, sequences: tuple[int, int], distinct: int, read: int
) -> list[Passes]:
    """Of one attention mixer; a lone query sees every key."""
    batch, length = sequences
    windows = (options.q_window, options.k_window, options.v_window)
    convolutions = [short_conv_work(batch, length, width, each) for each in windows if each > 1]
    heads = options.heads
    return [
        *convolutions,
        product_work(min(distinct, read), width, width),
        product_work(distinct, width, 2 * width),
        attention_work(batch, heads, length, width // heads, queries=read // batch),
        product_work(read, width, width),
    ]


def _gated_delta_passes(
    width: int, sequences: tuple[int, int], distinct: int, read: int
) -> list[Passes]:
    """Of one gated delta mixer with one head; where few positions are read, few have a gate."""
    batch, length = sequences
    keys, values, window = width, 2 * width, 4
    return [
        product_work(distinct, width, 2 * keys + values + 2),
        product_work(min(distinct, read), width, values),
        conv_work(batch, length, 2 * keys + values, window),
        gated_delta_work(batch, length, 1, keys, values, read),
        product_work(read, values, width),
    ]
