"""Every compiled operation at a small size, for tests that hold them all to one promise.

`batched` inputs have a row for each sequence and position; the others are weights.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from kernel_checks import Inputs
from torch import Tensor

from recall_arena import kernels
from recall_arena.kernels import (
    AttentionLayer,
    GatedDeltaLayer,
    GatedDeltaSizes,
    Layer,
    MambaLayer,
    mix,
)
from recall_arena.seeds import generator

BATCH = 6


@dataclass(frozen=True)
class Operation:
    """A compiled function, what it means, and inputs for it."""

    compiled: Callable[..., Tensor]
    definition: Callable[..., Tensor]
    inputs: Callable[[int], Inputs]
    batched: tuple[str, ...]
    axis: int = 1  # of the positions
    last: bool = False  # whether the output is that of the last position alone


def normal(name: str, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator("operations", name))


def scan_inputs(length: int, gated: bool = True, last: bool = False) -> Inputs:
    channels, state = 10, 16
    sequences = {name: normal(name, BATCH, length, channels) for name in ("u", "delta")}
    gate = normal("z", BATCH, channels) if last else normal("z", BATCH, length, channels)
    selections = {name: normal(name, BATCH, length, state) for name in ("B", "C")}
    return {
        **sequences,
        **selections,
        "z": gate if gated else None,
        "A": -normal("A", channels, state).exp(),
        "D": normal("D", channels),
        "delta_bias": normal("delta_bias", channels),
    }


def scan(last: bool, definition: bool) -> Callable[..., Tensor]:
    def called(**inputs: Tensor | None) -> Tensor:
        names = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
        if not definition:
            function = kernels.last_selective_scan if last else kernels.selective_scan
            return function(*(inputs[name] for name in names))
        gate = inputs.pop("z") if last else None
        y = kernels.selective_scan_definition(*(inputs.get(name) for name in names))
        return y[:, -1] * torch.nn.functional.silu(gate) if gate is not None else y

    return called


def conv_inputs(length: int, window: int, biased: bool = True) -> Inputs:
    x, weight = normal("x", BATCH, length, 10), normal("weight", 10, window)
    return {"x": x, "weight": weight, "bias": normal("bias", 10) if biased else None}


def attention_inputs(length: int, width: int, queries: int | None) -> Inputs:
    q = normal("q", BATCH, 2, queries or length, width)
    return {"q": q, **{name: normal(name, BATCH, 2, length, width) for name in ("k", "v")}}


def attention(rotary: bool, definition: bool) -> Callable[..., Tensor]:
    function = kernels.causal_attention_definition if definition else kernels.causal_attention

    def called(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return function(q, k, v, _table(k.shape[2], k) if rotary else None)

    return called


def delta_inputs(length: int, decay: str, value_width: int, key_width: int) -> Inputs:
    heads = 2
    shape = (BATCH, length, heads)
    g = {"none": None, "head": normal("g", *shape), "channel": normal("g", *shape, key_width)}
    return {
        "q": normal("q", *shape, key_width),
        "k": normal("k", *shape, key_width) / 3,
        "v": normal("v", *shape, value_width),
        "g": None if g[decay] is None else -g[decay].exp(),
        "beta": normal("beta", *shape).sigmoid(),
        "state": normal("state", BATCH, heads, key_width, value_width),
    }


def delta(definition: bool, normalised: bool) -> Callable[..., Tensor]:
    function = kernels.gated_delta_definition if definition else kernels.gated_delta

    def called(**inputs: Tensor | None) -> Tensor:
        return function(**inputs, normalised=normalised)[0]

    return called


MAMBA = MambaLayer(
    in_proj=normal("in_proj", 20, 8) / 2,
    in_bias=normal("in_bias", 20) / 2,
    conv1d=normal("conv1d", 10, 1, 4) / 2,
    conv_bias=normal("conv_bias", 10) / 2,
    x_proj=normal("x_proj", 33, 10) / 2,
    dt_proj=normal("dt_proj", 10, 1) / 2,
    A_log=normal("A_log", 10, 16) / 2,
    D=normal("D", 10) / 2,
    dt_bias=normal("dt_bias", 10) / 2,
    out_proj=normal("out_proj", 8, 10) / 2,
    out_bias=None,
)
ATTENTION = AttentionLayer(
    in_proj=normal("qkv", 24, 8) / 2,
    in_bias=None,
    q_conv=normal("q_conv", 8, 1, 3) / 2,
    k_conv=None,
    v_conv=None,
    out_proj=normal("out", 8, 8) / 2,
    out_bias=normal("out_bias", 8) / 2,
    heads=2,
    base=None,
)
GATED_DELTA = GatedDeltaLayer(
    in_proj=normal("delta_in", 28, 8) / 2,
    conv1d=normal("delta_conv", 16, 1, 4) / 2,
    A_log=normal("delta_A_log", 2) / 2,
    dt_bias=normal("delta_dt", 2) / 2,
    o_norm=normal("o_norm", 4),
    out_proj=normal("delta_out", 8, 8) / 2,
    sizes=GatedDeltaSizes(heads=2, key_width=2, value_width=4),
)
WIDE_KEYS = replace(
    GATED_DELTA,
    in_proj=normal("wide_in", 148, 8) / 2,
    conv1d=normal("wide_conv", 136, 1, 4) / 2,
    sizes=GatedDeltaSizes(heads=2, key_width=32, value_width=4),
)
KDA = replace(
    GATED_DELTA,
    in_proj=normal("kda_in", 22, 8) / 2,
    conv1d=None,
    dt_bias=normal("kda_dt", 4) / 2,
    sizes=GatedDeltaSizes(2, 2, 4, by_channel=True, beta_scale=2.0, gate="none"),
)
LAYERS: dict[str, Layer] = {
    "mamba": MAMBA,
    "attention mixer": ATTENTION,
    "attention mixer rope": replace(ATTENTION, base=10_000.0),
    "gated delta mixer": GATED_DELTA,
    "gated delta mixer by products": WIDE_KEYS,
    "KDA mixer": KDA,
}


def mixer(layer: Layer, last: bool, definition: bool) -> Callable[..., Tensor]:
    def called(x: Tensor, **weights: Tensor) -> Tensor:
        given = layer.with_weights(tuple(weights.values()))
        out = given.definition(x, last=last) if definition else mix(given, x, last=last)
        return out.squeeze(1) if last else out

    return called


def mixer_inputs(layer: Layer, length: int) -> Inputs:
    weights = {f"weight {i}": weight for i, weight in enumerate(layer.weights())}
    return {"x": normal("x", BATCH, length, 8), **weights}


def _table(length: int, like: Tensor) -> Tensor:
    return kernels.rotary_table(torch.arange(length, dtype=like.dtype), like.shape[3])


DELTAS = (  # decay, normalised, value_width, key_width
    *(("none", True, 3, 5), ("head", False, 20, 5), ("channel", True, 20, 5)),
    *(("none", True, 3, 33), ("head", False, 20, 33)),  # by products
)


def _operations() -> dict[str, Operation]:
    sequences = ("u", "delta", "B", "C", "z")
    found = {
        "scan": Operation(scan(False, False), scan(False, True), scan_inputs, sequences),
        "ungated scan": Operation(
            *(scan(False, False), scan(False, True)),
            partial(scan_inputs, gated=False),
            sequences[:-1],
        ),
        "last scan": Operation(
            *(scan(True, False), scan(True, True)),
            partial(scan_inputs, last=True),
            sequences[:-1],
            last=True,
        ),
    }
    for window in (3, 4):
        conv = (kernels.causal_conv, kernels.causal_conv_definition)
        given = partial(conv_inputs, window=window)
        found[f"conv {window}"] = Operation(*conv, given, ("x",))
    given = partial(conv_inputs, window=4, biased=False)
    found["conv without bias"] = Operation(*conv, given, ("x",))
    for width, rotary in ((3, False), (4, True), (10, False), (10, True)):
        functions = (attention(rotary, False), attention(rotary, True))
        for queries in (None, 1):
            given = partial(attention_inputs, width=width, queries=queries)
            batched = ("q", "k", "v") if queries is None else ("k", "v")
            found[f"attention {width} {rotary} {queries}"] = Operation(
                *functions, given, batched, axis=2, last=queries == 1
            )
    for decay, normalised, *widths in DELTAS:
        functions = (delta(False, normalised), delta(True, normalised))
        value_width, key_width = widths
        given = partial(delta_inputs, decay=decay, value_width=value_width, key_width=key_width)
        batched = ("q", "k", "v", "beta", *(() if decay == "none" else ("g",)))
        found[f"gated delta {key_width}, decay {decay}"] = Operation(*functions, given, batched)
    for name, layer in LAYERS.items():
        for last in (False, True):
            found[f"{'last ' * last}{name}"] = Operation(
                *(mixer(layer, last, False), mixer(layer, last, True)),
                partial(mixer_inputs, layer),
                batched=("x",),
                last=last,
            )
    return found


OPERATIONS = _operations()
