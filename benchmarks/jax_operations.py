"""The operations in JAX, written for XLA on a CPU.

The scan is `lax.scan` with the exponential inside its body; `unroll` is how many positions XLA
sees at once.

Tried on one core and slower, forward and backward: `associative_scan` (four times), decays and
drives formed outside the loop (three times), a body whose backward pass reads what it saved
instead of recomputing it (by half), a gradient written by hand, chunks of 8 or 16 positions
that are recomputed as a whole, a loop over blocks of the batch, the state's axes exchanged;
for attention `jax.nn.dot_product_attention` (by two thirds), products written as sums, the batch
as the last axis.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax


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
    return jax.nn.silu(linear_conv(x, weight, bias))


def linear_conv(x: Array, weight: Array, bias: Array) -> Array:
    """The same without the SiLU."""
    length, window = x.shape[1], weight.shape[1]
    padded = jnp.pad(x, ((0, 0), (window - 1, 0), (0, 0)))
    return bias + sum(weight[:, k] * padded[:, k : k + length] for k in range(window))


def causal_attention(q: Array, k: Array, v: Array) -> Array:
    """As `recall_arena.kernels.causal_attention`; fewer queries than keys are the last ones."""
    scores = jnp.einsum("...iw,...jw->...ij", q * q.shape[-1] ** -0.5, k)
    queries, keys = scores.shape[-2:]
    if queries > 1:
        past = jnp.tril(jnp.ones((queries, keys), bool), keys - queries)
        scores = jnp.where(past, scores, -jnp.inf)
    weights = jnp.exp(scores - lax.stop_gradient(scores.max(axis=-1, keepdims=True)))
    mixed = jnp.einsum("...ij,...jw->...iw", weights, v)
    return mixed / weights.sum(axis=-1, keepdims=True)  # quicker than dividing the weights


def gated_delta(q: Array, k: Array, v: Array, g: Array, beta: Array, *, unroll: int) -> Array:
    """As `recall_arena.kernels.gated_delta` with normalised keys: the outputs alone."""

    def unit(x: Array) -> Array:
        return x * lax.rsqrt((x * x).sum(axis=-1, keepdims=True) + 1e-6)

    @jax.checkpoint
    def step(S: Array, now: tuple[Array, Array, Array, Array, Array]) -> tuple[Array, Array]:
        q_t, k_t, v_t, g_t, beta_t = now
        S = jnp.exp(g_t)[..., None, None] * S
        error = beta_t[..., None] * (v_t - jnp.einsum("bhkv,bhk->bhv", S, k_t))
        S = S + k_t[..., None] * error[..., None, :]
        return S, jnp.einsum("bhkv,bhk->bhv", S, q_t)

    q, k = unit(q) * q.shape[3] ** -0.5, unit(k)
    by_position = tuple(jnp.moveaxis(x, 1, 0) for x in (q, k, v, g, beta))
    start = jnp.zeros((q.shape[0], *k.shape[2:], v.shape[3]), v.dtype)
    _, outputs = lax.scan(step, start, by_position, unroll=unroll)
    return jnp.moveaxis(outputs, 0, 1)


OPERATIONS: dict[str, Callable[..., Array]] = {
    "selective_scan": selective_scan,
    "causal_conv": causal_conv,
    "causal_attention": causal_attention,
    "gated_delta": gated_delta,
}
