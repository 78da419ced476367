"""The gated delta rule (DeltaNet, arXiv:2406.06484; Gated DeltaNet, arXiv:2412.06464, eq. 10).

    S'_t = diag(exp(g_t)) S_{t-1}                            (key_width, value_width)
    S_t  = S'_t + beta_t k_t (v_t - S'_t^T k_t)^T
    o_t  = scale S_t^T q_t

The state S holds values under keys.  Each position lets it fade by g_t, and replaces the share
beta_t of what it has under k_t by v_t.  g_t is one number for a head, or one for each channel of
its keys (KDA, arXiv:2510.26692), or there is none.  At beta = 2 the old value is mirrored rather
than erased (arXiv:2411.12537).

`gated_delta_definition` says what this means; `gated_delta` says it fast, where the compiled
kernel takes the tensors.  The tests hold the second to the first, gradients included.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from recall_arena.kernels import native, structs
from recall_arena.kernels.function import Operation, Tensors, compiled

Keys = Float[Tensor, "batch length heads key_width"]
Values = Float[Tensor, "batch length heads value_width"]
Rates = Float[Tensor, "batch length heads"]
Decays = Float[Tensor, "batch length heads *key_width"]
State = Float[Tensor, "batch heads key_width value_width"]

EPSILON = 1e-6  # added to the squared length of a vector that is normalised


def unit(x: Tensor) -> Tensor:
    """Vectors along the last axis at length 1, and those much shorter than 1e-3 near 0."""
    return x / torch.sqrt((x * x).sum(-1, keepdim=True) + EPSILON)


def gated_delta_definition(
    q: Keys,
    k: Keys,
    v: Values,
    g: Decays | None,
    beta: Rates,
    state: State | None = None,
    *,
    normalised: bool = False,
    scale: float | None = None,
) -> tuple[Values, State]:
    """One step after another: the equations, transcribed.  Any float type, any device."""
    if normalised:
        q, k = unit(q), unit(k)
    q = q * (q.shape[3] ** -0.5 if scale is None else scale)
    S = v.new_zeros(_state_shape(k, v)) if state is None else state
    states, outputs = delta_states(k, v, g, beta, S), []
    for t, S in enumerate(states):
        outputs.append((S * q[:, t].unsqueeze(-1)).sum(2))
    return torch.stack(outputs, dim=1) if outputs else torch.zeros_like(v), S


def delta_states(
    k: Keys, v: Values, g: Decays | None, beta: Rates, S: State | None = None
) -> Iterator[State]:
    """The state after each position."""
    S = v.new_zeros(_state_shape(k, v)) if S is None else S
    for t in range(k.shape[1]):
        if g is not None:
            decay = g[:, t].exp()
            S = S * (decay.unsqueeze(2) if g.ndim == 3 else decay).unsqueeze(3)
        error = v[:, t] - (S * k[:, t].unsqueeze(-1)).sum(2)
        S = S + k[:, t].unsqueeze(-1) * (beta[:, t].unsqueeze(-1) * error).unsqueeze(2)
        yield S


def gated_delta(
    q: Keys,
    k: Keys,
    v: Values,
    g: Decays | None,
    beta: Rates,
    state: State | None = None,
    *,
    normalised: bool = False,
    scale: float | None = None,
) -> tuple[Values, State]:
    """The outputs (batch, length, heads, value_width), and the state after the last position.

    q, k (batch, length, heads, key_width); v (batch, length, heads, value_width); g, the
    logarithm of what is kept of the state, (batch, length, heads) or (batch, length, heads,
    key_width), None for all of it; beta (batch, length, heads); `state`, that before the first
    position, (batch, heads, key_width, value_width), None for 0.  `normalised` brings queries and
    keys to length 1 first.  `scale` of the queries is 1 / sqrt(key_width) if it is None.

    Everything has gradients, states included.  Runs compiled for float32 on the CPU; otherwise as
    the definition.  Bit-identical from call to call, for any number of threads.  Raises
    ValueError if the shapes do not fit together.
    """
    _check_shapes(q, k, v, g, beta, state)
    tensors = (q, k, v, g, beta, state)
    if not native.fits(*(x for x in tensors if x is not None)):
        return gated_delta_definition(*tensors, normalised=normalised, scale=scale)
    scale = q.shape[3] ** -0.5 if scale is None else scale
    both = compiled(_GatedDelta(normalised, scale), *tensors)
    shape = _state_shape(k, v)
    out, final = both.split([v.numel(), shape.numel()])
    return out.view(v.shape), final.view(shape)


def _state_shape(k: Tensor, v: Tensor) -> torch.Size:
    return torch.Size((k.shape[0], k.shape[2], k.shape[3], v.shape[3]))


def _check_shapes(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, beta: Tensor, state: Tensor | None
) -> None:
    """The compiled kernel reads where the shapes say, so they are compared before it may."""
    fit = q.shape == k.shape and q.ndim == 4 and q.shape[:3] == v.shape[:3] == beta.shape
    fit = fit and (g is None or g.shape in (k.shape, beta.shape))
    if not (fit and (state is None or state.shape == _state_shape(k, v))):
        given = (q, k, v, g, beta, state)
        raise ValueError(
            "q, k must be (batch, length, heads, key_width), v (batch, length, heads, "
            "value_width), g as k or as beta, beta (batch, length, heads), state (batch, heads, "
            "key_width, value_width); got "
            + ", ".join("None" if x is None else str(tuple(x.shape)) for x in given)
        )


Inputs = tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor, Tensor | None]


@dataclass(frozen=True)
class _GatedDelta(Operation):
    """Outputs and last state one behind the other, as one vector."""

    normalised: bool
    scale: float

    def definition(self, *tensors: Any) -> Tensor:
        out, state = gated_delta_definition(*tensors, normalised=self.normalised, scale=self.scale)
        return torch.cat([out.flatten(), state.flatten()])

    def forward(self, tensors: Inputs, *, train: bool) -> tuple[Tensor, Tensors]:
        ready = _in_rows(tensors)
        _, k, v, *_ = tensors
        shape = _state_shape(k, v)
        both = v.new_empty(v.numel() + shape.numel())
        out, final = both.split([v.numel(), shape.numel()])
        call = self._arguments(ready, k.shape)
        structs.point(call, {"out": out, "final": final})
        kept: dict[str, Tensor] = {}
        if train:
            by_channel = ready[3] is not None and ready[3].ndim == 4
            chunks = kept_states(k.shape[1], k.shape[3], by_channel=by_channel)
            states = v.new_empty(*shape[:2], chunks, *shape[2:])
            kept = {"states": states, "errors": v.new_empty(v.shape)}
            structs.point(call, kept)
        native.call("recall_delta_forward", call, native.threads(v.numel() * k.shape[3] // 8))
        return both, tuple(kept.values())

    def backward(self, tensors: Inputs, saved: tuple[Tensor, Tensor], grad_out: Tensor) -> Tensors:
        ready = _in_rows(tensors)
        _, k, v, *_ = tensors
        arriving = grad_out.contiguous().split([v.numel(), _state_shape(k, v).numel()])
        gradients = [None if x is None else x.new_empty(x.shape) for x in tensors]
        call = self._arguments(ready, k.shape)
        structs.point(call, dict(zip(("states", "errors"), saved, strict=True)))
        structs.point(call, dict(zip(("grad_out", "grad_final"), arriving, strict=True)))
        places = ("grad_q", "grad_k", "grad_v", "grad_g", "grad_beta", "grad_initial")
        named = zip(places, gradients, strict=True)
        structs.point(call, {name: x for name, x in named if x is not None})
        call.grad_key_stride, call.grad_v_stride = k[0, 0].numel(), v[0, 0].numel()
        native.call("recall_delta_backward", call, native.threads(v.numel() * k.shape[3] // 4))
        return tuple(gradients)

    def _arguments(self, ready: Inputs, shape: torch.Size) -> structs.Delta:
        """The struct for inputs from `_in_rows`; `shape` is that of the keys."""
        batch, length, heads, key_width = shape
        q, k, v, g, _, _ = ready
        by_channel = g is not None and g.ndim == 4
        call = structs.Delta(
            batch=batch,
            length=length,
            heads=heads,
            key_width=key_width,
            value_width=v.shape[2] // heads,
            q_stride=q.stride(1),
            k_stride=k.stride(1),
            v_stride=v.stride(1),
            g_stride=heads * (key_width if by_channel else 1),
            g_head=key_width if by_channel else 1,
            beta_stride=heads,
            beta_head=1,
            g_by_channel=by_channel,
            normalised=self.normalised,
            scale=self.scale,
        )
        named = zip(("q", "k", "v", "g", "beta", "initial"), ready, strict=True)
        structs.point(call, {name: x for name, x in named if x is not None})
        return call


def kept_states(length: int, key_width: int, *, by_channel: bool) -> int:
    """How many states of a head the kernel keeps for its backward pass: one a chunk."""
    by_products = not by_channel and key_width >= native.DELTA_BY_PRODUCTS
    return -(-length // (native.DELTA_CHUNK if by_products else native.SCAN_CHUNK))


def _in_rows(tensors: Inputs) -> Inputs:
    """The tensors as the kernel reads them: a row of all heads for each position."""
    q, k, v, g, beta, state = tensors
    return (
        *(native.rows(q.flatten(2)), native.rows(k.flatten(2)), native.rows(v.flatten(2))),
        *(None if g is None else g.contiguous(), beta.contiguous()),
        None if state is None else state.contiguous(),
    )
