"""The same operations, mixers and models in JAX, written for XLA on a CPU.

Weights are a dictionary under the names of ours, so a model's `state_dict` loads as it is.
Of the last layer only the last position is computed, as ours does.  The scan is `lax.scan`
with the exponential inside its body; `unroll` is how many positions XLA sees at once.

Tried on one core and slower, forward and backward: `associative_scan` (four times), decays and
drives formed outside the loop (three times), a body whose backward pass reads what it saved
instead of computing it again (by half), a gradient written by hand, parts of 8 or 16 positions
that are computed again as a whole, a loop over parts of the batch, the state's axes exchanged;
for attention `jax.nn.dot_product_attention` (by two thirds), products written as sums, the batch
as the last axis.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array, lax

from recall_arena.model import ModelSpec

Weights = dict[str, Array]


# Operations


def selective_scan(
    u: Array,
    delta: Array,
    A: Array,
    B: Array,
    C: Array,
    D: Array,
    z: Array | None,
    delta_bias: Array,
    *,
    unroll: int,
) -> Array:
    """As `recall_arena.kernels.selective_scan`."""
    delta = jax.nn.softplus(delta + delta_bias)

    @jax.checkpoint
    def step(h: Array, now: tuple[Array, Array, Array, Array]) -> tuple[Array, Array]:
        u_t, delta_t, B_t, C_t = now
        h = _next_state(h, A, u_t, delta_t, B_t)
        return h, jnp.einsum("bnd,bn->bd", h, C_t)

    by_position = tuple(jnp.moveaxis(x, 1, 0) for x in (u, delta, B, C))
    start = jnp.zeros((u.shape[0], A.shape[1], A.shape[0]), u.dtype)
    _, outputs = lax.scan(step, start, by_position, unroll=unroll)
    y = jnp.moveaxis(outputs, 0, 1) + D * u
    return y if z is None else y * jax.nn.silu(z)


def last_of_scan(
    u: Array,
    delta: Array,
    A: Array,
    B: Array,
    C: Array,
    D: Array,
    delta_bias: Array,
    *,
    unroll: int,
) -> Array:
    """The last position of `selective_scan` without a gate: no other position is read out."""
    delta = jax.nn.softplus(delta + delta_bias)

    @jax.checkpoint
    def step(h: Array, now: tuple[Array, Array, Array]) -> tuple[Array, None]:
        u_t, delta_t, B_t = now
        return _next_state(h, A, u_t, delta_t, B_t), None

    by_position = tuple(jnp.moveaxis(x, 1, 0) for x in (u, delta, B))
    start = jnp.zeros((u.shape[0], A.shape[1], A.shape[0]), u.dtype)
    h, _ = lax.scan(step, start, by_position, unroll=unroll)
    return jnp.einsum("bnd,bn->bd", h, C[:, -1]) + D * u[:, -1]


def _next_state(h: Array, A: Array, u: Array, delta: Array, B: Array) -> Array:
    """h (batch, state, channels): XLA's loops then run over channels, the longer axis."""
    decay = jnp.exp(delta[:, None, :] * A.T)
    return decay * h + (delta * u)[:, None, :] * B[:, :, None]


def causal_conv(x: Array, weight: Array, bias: Array) -> Array:
    """As `recall_arena.kernels.causal_conv`: shifted copies, for XLA fuses their sum."""
    length, window = x.shape[1], weight.shape[1]
    padded = jnp.pad(x, ((0, 0), (window - 1, 0), (0, 0)))
    return jax.nn.silu(bias + sum(weight[:, k] * padded[:, k : k + length] for k in range(window)))


def causal_attention(q: Array, k: Array, v: Array) -> Array:
    """As `recall_arena.kernels.causal_attention`; fewer queries than keys are the last ones."""
    scores = jnp.einsum("...iw,...jw->...ij", q * q.shape[-1] ** -0.5, k)
    queries, keys = scores.shape[-2:]
    if queries > 1:
        past = jnp.tril(jnp.ones((queries, keys), bool), keys - queries)
        scores = jnp.where(past, scores, -jnp.inf)
    shares = jnp.exp(scores - lax.stop_gradient(scores.max(axis=-1, keepdims=True)))
    mixed = jnp.einsum("...ij,...jw->...iw", shares, v)
    return mixed / shares.sum(axis=-1, keepdims=True)  # quicker than dividing the shares


OPERATIONS: dict[str, Callable[..., Array]] = {
    "selective_scan": selective_scan,
    "causal_conv": causal_conv,
    "causal_attention": causal_attention,
}


# Mixers


def mamba(weights: Weights, x: Array, *, unroll: int) -> Array:
    """Every position's output of `recall_arena.mixers.Mamba`."""
    return _mamba_of(weights, x @ weights["in_proj.weight"].T, unroll)


def _mamba_of(weights: Weights, projected: Array, unroll: int) -> Array:
    u, z = jnp.split(projected, 2, axis=-1)
    u, delta, A, B, C = _selection(weights, u)
    D, bias = weights["D"], weights["dt_proj.bias"]
    y = selective_scan(u, delta, A, B, C, D, z, bias, unroll=unroll)
    return y @ weights["out_proj.weight"].T


def last_of_mamba(weights: Weights, x: Array, *, unroll: int) -> Array:
    """The last position's output alone."""
    into_u, into_z = jnp.split(weights["in_proj.weight"], 2)
    u, delta, A, B, C = _selection(weights, x @ into_u.T)
    D, bias = weights["D"], weights["dt_proj.bias"]
    y = last_of_scan(u, delta, A, B, C, D, bias, unroll=unroll)
    return (y * jax.nn.silu(x[:, -1] @ into_z.T)) @ weights["out_proj.weight"].T


def _selection(weights: Weights, u: Array) -> tuple[Array, Array, Array, Array, Array]:
    u = causal_conv(u, weights["conv1d.weight"][:, 0], weights["conv1d.bias"])
    rank, state = weights["dt_proj.weight"].shape[1], weights["A_log"].shape[1]
    chosen = u @ weights["x_proj.weight"].T
    delta, B, C = jnp.split(chosen, [rank, rank + state], axis=-1)
    return u, delta @ weights["dt_proj.weight"].T, -jnp.exp(weights["A_log"]), B, C


def attention(weights: Weights, x: Array, *, rotary: bool) -> Array:
    """Every position's output of `recall_arena.mixers.Attention` with one head."""
    return _attention_of(weights, x @ weights["in_proj.weight"].T, rotary)


def _attention_of(weights: Weights, projected: Array, rotary: bool) -> Array:
    q, k, v = jnp.split(projected, 3, axis=-1)
    if rotary:
        positions = jnp.arange(q.shape[1])
        q, k = rotate(q, positions), rotate(k, positions)
    return causal_attention(q, k, v) @ weights["out_proj.weight"].T


def last_of_attention(weights: Weights, x: Array, *, rotary: bool) -> Array:
    """The last position's output alone: one query."""
    into_q, into_k, into_v = jnp.split(weights["in_proj.weight"], 3)
    q, k, v = x[:, -1:] @ into_q.T, x @ into_k.T, x @ into_v.T
    if rotary:
        positions = jnp.arange(x.shape[1])
        q, k = rotate(q, positions[-1:]), rotate(k, positions)
    return (causal_attention(q, k, v) @ weights["out_proj.weight"].T)[:, 0]


def rotate(x: Array, positions: Array, base: float = 10_000.0) -> Array:
    """As `recall_arena.mixers.attention.rotate`."""
    half = x.shape[-1] // 2
    angle = positions[:, None] * base ** -(jnp.arange(half) / half)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    left, right = x[..., :half], x[..., half:]
    return jnp.concatenate([left * cos - right * sin, right * cos + left * sin], axis=-1)


# Models


@dataclass(frozen=True)
class JaxModel:
    """`recall_arena.model.SequenceModel` as a function of its weights; the embedding is fixed."""

    spec: ModelSpec
    embedding: Array
    unroll: int

    def logits(self, weights: Weights, tokens: Array) -> Array:
        """Tokens (batch, length) to the logits after the last one."""
        x = self.embedding[tokens]
        if self.spec.positions == "learned":
            x = x + weights["positions.weight"][: tokens.shape[1]]
        *before, final = range(len(self.spec.layers))
        if before and self.spec.positions == "none":
            x = x + self._first(weights, tokens)
            before = before[1:]
        for index in before:
            x = x + self._mix(weights, index, x, last=False)
        x = x[:, -1] + self._mix(weights, final, x, last=True)
        return layer_norm(part(weights, "norm_f."), x) @ weights["lm_head.weight"].T

    def loss(self, weights: Weights, tokens: Array, answers: Array) -> Array:
        """The mean cross-entropy of the answers."""
        shares = jax.nn.log_softmax(self.logits(weights, tokens))
        return -jnp.take_along_axis(shares, answers[:, None], axis=1).mean()

    def _first(self, weights: Weights, tokens: Array) -> Array:
        """The first mixer's output; each token is normalised and projected once, as ours is."""
        block = part(weights, "layers.0.")
        mixer = part(block, "mixer.")
        each = layer_norm(part(block, "norm."), self.embedding) @ mixer["in_proj.weight"].T
        if self.spec.layers[0] == "mamba":
            return _mamba_of(mixer, each[tokens], self.unroll)
        return _attention_of(mixer, each[tokens], self.spec.layers[0] == "attention-rope")

    def _mix(self, weights: Weights, index: int, x: Array, *, last: bool) -> Array:
        block = part(weights, f"layers.{index}.")
        x, mixer = layer_norm(part(block, "norm."), x), part(block, "mixer.")
        name = self.spec.layers[index]
        if name == "mamba":
            mix = last_of_mamba if last else mamba
            return mix(mixer, x, unroll=self.unroll)
        attend = last_of_attention if last else attention
        return attend(mixer, x, rotary=name == "attention-rope")


def layer_norm(weights: Weights, x: Array) -> Array:
    """As `torch.nn.LayerNorm`."""
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred**2).mean(axis=-1, keepdims=True)
    return centred * lax.rsqrt(variance + 1e-5) * weights["weight"] + weights["bias"]


def part(weights: Weights, prefix: str) -> Weights:
    """The weights whose names start with the prefix, without it."""
    return {name.removeprefix(prefix): w for name, w in weights.items() if name.startswith(prefix)}
