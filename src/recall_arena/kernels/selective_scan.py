"""The selective scan of Mamba, compiled; `scan_definition.py` has the equations.

`selective_scan` gives the output at every position, `last_selective_scan` at the last one alone,
and `continued_scan` goes on from the state in which the part before left off.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from recall_arena.kernels import native, structs
from recall_arena.kernels.function import Operation, Tensors, compiled
from recall_arena.kernels.scan_definition import (
    PerChannel,
    States,
    Transition,
    continued_scan_definition,
    no_state,
    selective_scan_definition,
)
from recall_arena.shapes import Channels, Selection

Last = Float[Tensor, "batch channels"]

NAMES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")


def selective_scan(
    u: Channels,
    delta: Channels,
    A: Transition,
    B: Selection,
    C: Selection,
    D: PerChannel,
    z: Channels | None,
    delta_bias: PerChannel,
) -> Channels:
    """(scan(softplus(delta + delta_bias)) + D u) silu(z), causal along `length`.

    u, delta, z (batch, length, channels); A (channels, state), negative; B, C (batch, length,
    state); D, delta_bias (channels,).  `z` may be None: then nothing gates the output.  Runs
    compiled for float32 on the CPU with at most 256 states; otherwise as the definition.
    Bit-identical from call to call, for any number of threads.  Raises ValueError if the shapes
    do not fit together.
    """
    inputs = (u, delta, A, B, C, D, z, delta_bias)
    _check_shapes(inputs, u.shape)
    if _compiled(inputs):
        return compiled(_Scan(last=False), *inputs)
    return selective_scan_definition(*inputs)


def last_selective_scan(
    u: Channels,
    delta: Channels,
    A: Transition,
    B: Selection,
    C: Selection,
    D: PerChannel,
    z: Last | None,
    delta_bias: PerChannel,
) -> Last:
    """`selective_scan` at the last position alone, whose gate is z (batch, channels).

    The same numbers for less work: the states are computed, but read only once.  Raises
    ValueError if the shapes do not fit together or the length is 0.
    """
    inputs = (u, delta, A, B, C, D, z, delta_bias)
    _check_shapes(inputs, u[:, 0].shape if u.shape[1] else torch.Size())
    if _compiled(inputs):
        return compiled(_Scan(last=True), *inputs)
    return _Scan(last=True).definition(*inputs)


def continued_scan(
    u: Channels,
    delta: Channels,
    A: Transition,
    B: Selection,
    C: Selection,
    D: PerChannel,
    z: Channels | None,
    delta_bias: PerChannel,
    h: States | None,
) -> tuple[Channels, States]:
    """`selective_scan` of a part of a sequence, and the state (batch, channels, state) after it.

    `h` is the state after the part before, or None at the start; so a sequence of any length can
    be worked through in memory that does not grow with it.  The compiled kernel has no gradient of
    states, so where one is wanted the definition runs, one position after another.
    """
    inputs = (u, delta, A, B, C, D, z, delta_bias)
    _check_shapes(inputs, u.shape)
    h = no_state(u, A) if h is None else h
    if h.shape != (u.shape[0], *A.shape):
        raise ValueError(f"h must be (batch, channels, state), got {tuple(h.shape)}")
    learns = torch.is_grad_enabled() and any(
        x is not None and x.requires_grad for x in (*inputs, h)
    )
    if learns or not (_compiled(inputs) and native.fits(h)):
        return continued_scan_definition(*inputs, h)
    ready = _in_rows(inputs)
    before, out = h.transpose(1, 2).contiguous(), u.new_empty(u.shape)
    after = before.new_empty(before.shape)
    arguments = _arguments(ready, out)
    arguments.initial, arguments.final = before.data_ptr(), after.data_ptr()
    native.call("recall_scan_forward", arguments, native.threads(u.numel()))
    return out, after.transpose(1, 2)


Inputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor]


def _check_shapes(inputs: Inputs, gate: torch.Size) -> None:
    """The compiled kernel reads where the shapes say, so they are compared before it may."""
    u, delta, A, B, C, D, z, delta_bias = inputs
    sequences = u.shape == delta.shape and (z is None or z.shape == gate) and len(gate) > 1
    channels, state = A.shape
    selections = B.shape == C.shape == (*u.shape[:2], state)
    if not (sequences and selections and D.shape == delta_bias.shape == u.shape[2:] == (channels,)):
        shapes = ", ".join("None" if t is None else str(tuple(t.shape)) for t in inputs)
        raise ValueError(
            "u, delta, z must be (batch, length, channels), A (channels, state), B, C (batch, "
            f"length, state), D, delta_bias (channels,); got {shapes}"
        )


def _compiled(inputs: Inputs) -> bool:
    """Whether the compiled kernel takes these tensors."""
    return native.fits(*(x for x in inputs if x is not None)) and (
        inputs[2].shape[1] <= native.LARGEST_STATE
    )


def _in_rows(inputs: Inputs) -> Inputs:
    """The tensors as the kernel reads them; A comes transposed."""
    u, delta, A, B, C, D, z, delta_bias = inputs
    return (
        *(native.rows(u), native.rows(delta), A.t().contiguous(), native.rows(B), native.rows(C)),
        *(D.contiguous(), None if z is None else _read_rows(z), delta_bias.contiguous()),
    )


def _read_rows(x: Tensor) -> Tensor:
    """A row for each position that is read: (batch, length, channels), or (batch, channels)."""
    return x.contiguous() if x.ndim == 2 else native.rows(x)


def _arguments(inputs: Inputs, out: Tensor) -> structs.Scan:
    """The struct for inputs from `_in_rows`; an output of two axes is the last position's."""
    batch, length, channels = inputs[0].shape
    arguments = structs.Scan(
        batch=batch,
        length=length,
        channels=channels,
        state=inputs[2].shape[0],
        out=out.data_ptr(),
        last=out.ndim == 2,
    )
    for name, x in zip(NAMES, inputs, strict=True):
        if x is not None:
            setattr(arguments, name, x.data_ptr())
        if x is not None and name in ("u", "delta", "B", "C", "z"):
            setattr(arguments, f"{name}_stride", x.stride(-2))
    return arguments


@dataclass(frozen=True)
class _Scan(Operation):
    """The scan; `last` for its last position alone."""

    last: bool

    def definition(self, *tensors: Any) -> Tensor:
        if not self.last:
            return selective_scan_definition(*tensors)
        u, delta, A, B, C, D, z, delta_bias = tensors
        y = selective_scan_definition(u, delta, A, B, C, D, None, delta_bias)[:, -1]
        return y if z is None else y * F.silu(z)

    def forward(self, tensors: Inputs, *, train: bool) -> tuple[Tensor, Tensors]:
        ready = _in_rows(tensors)
        u, A = ready[0], ready[2]
        batch, length, channels = u.shape
        out = u.new_empty((batch, channels) if self.last else u.shape)
        arguments = _arguments(ready, out)
        states = None
        if train:
            states = u.new_empty(batch, -(-length // native.SCAN_CHUNK), *A.shape)
            arguments.states = states.data_ptr()
        native.call("recall_scan_forward", arguments, native.threads(u.numel()))
        return out, (states,)

    def backward(self, tensors: Inputs, saved: tuple[Tensor], grad_out: Tensor) -> Tensors:
        ready, (states,) = _in_rows(tensors), saved
        u, _, A, B, C, _, z, _ = ready
        batch, _, channels = u.shape
        state = A.shape[0]
        grad_out = _read_rows(grad_out)
        grad_u, grad_delta = u.new_empty(u.shape), u.new_empty(u.shape)
        grad_z = None if z is None else u.new_empty(z.shape)
        grad_B, grad_C = u.new_empty(B.shape), u.new_empty(C.shape)
        partial = u.new_empty(batch, state + 2, channels)

        arguments = _arguments(ready, grad_out)
        arguments.states = states.data_ptr()
        arguments.grad_out, arguments.grad_out_stride = grad_out.data_ptr(), grad_out.stride(-2)
        arguments.grad_u, arguments.grad_delta = grad_u.data_ptr(), grad_delta.data_ptr()
        arguments.grad_z = None if grad_z is None else grad_z.data_ptr()
        arguments.grad_B, arguments.grad_C = grad_B.data_ptr(), grad_C.data_ptr()
        arguments.grad_A = partial.data_ptr()
        arguments.grad_D = partial[0, state].data_ptr()
        arguments.grad_bias = partial[0, state + 1].data_ptr()
        native.call("recall_scan_backward", arguments, native.threads(u.numel()))
        grad_A, grad_D, grad_bias = partial[0].split([state, 1, 1])
        return (
            *(grad_u, grad_delta, grad_A.t(), grad_B, grad_C),
            *(grad_D.squeeze(0), grad_z, grad_bias.squeeze(0)),
        )
