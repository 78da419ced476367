"""The same mixers and models in JAX, as functions of their weights.

Weights are a dictionary under the names of ours, so a model's `state_dict` loads as it is.
Of the last layer only the last position is computed, as ours does.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array, lax

from benchmarks.jax_operations import causal_attention, last_of_scan, linear_conv, selective_scan
from recall_arena.mixers import Attention, Mamba
from recall_arena.model import ModelSpec

Weights = dict[str, Array]


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
    u = _convolved(weights, "conv1d", u, weights.get("conv1d.bias", jnp.zeros(())))
    u = jax.nn.silu(u)
    rank, state = weights["dt_proj.weight"].shape[1], weights["A_log"].shape[1]
    chosen = u @ weights["x_proj.weight"].T
    delta, B, C = jnp.split(chosen, [rank, rank + state], axis=-1)
    return u, delta @ weights["dt_proj.weight"].T, -jnp.exp(weights["A_log"]), B, C


def _convolved(weights: Weights, name: str, x: Array, bias: Array) -> Array:
    """x by the convolution of this name, where there is one; no activation."""
    kernel = f"{name}.weight"
    return linear_conv(x, weights[kernel][:, 0], bias) if kernel in weights else x


def attention(weights: Weights, x: Array, *, rotary: bool) -> Array:
    """Every position's output of `recall_arena.mixers.Attention` with one head."""
    return _attention_of(weights, x @ weights["in_proj.weight"].T, rotary)


def _attention_of(weights: Weights, projected: Array, rotary: bool) -> Array:
    q, k, v = _short(weights, *jnp.split(projected, 3, axis=-1))
    if rotary:
        positions = jnp.arange(q.shape[1])
        q, k = rotate(q, positions), rotate(k, positions)
    return causal_attention(q, k, v) @ weights["out_proj.weight"].T


def last_of_attention(weights: Weights, x: Array, *, rotary: bool) -> Array:
    """The last position's output alone: one query."""
    into_q, into_k, into_v = jnp.split(weights["in_proj.weight"], 3)
    seen = weights["q_conv1d.weight"].shape[2] if "q_conv1d.weight" in weights else 1
    q, k, v = _short(weights, x[:, -seen:] @ into_q.T, x @ into_k.T, x @ into_v.T)
    q = q[:, -1:]
    if rotary:
        positions = jnp.arange(x.shape[1])
        q, k = rotate(q, positions[-1:]), rotate(k, positions)
    return (causal_attention(q, k, v) @ weights["out_proj.weight"].T)[:, 0]


def _short(weights: Weights, q: Array, k: Array, v: Array) -> tuple[Array, Array, Array]:
    """Queries, keys and values by their convolutions, where there are any."""
    none = jnp.zeros(())
    q, k, v = (
        _convolved(weights, f"{name}_conv1d", each, none)
        for name, each in (("q", q), ("k", k), ("v", v))
    )
    return q, k, v


def rotate(x: Array, positions: Array, base: float = 10_000.0) -> Array:
    """As `recall_arena.kernels.rotary.rotate`."""
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
        return layer_norm(under(weights, "norm_f."), x) @ weights["lm_head.weight"].T

    def loss(self, weights: Weights, tokens: Array, answers: Array) -> Array:
        """The mean cross-entropy of the answers."""
        likelihoods = jax.nn.log_softmax(self.logits(weights, tokens))
        return -jnp.take_along_axis(likelihoods, answers[:, None], axis=1).mean()

    def _first(self, weights: Weights, tokens: Array) -> Array:
        """The first mixer's output; each token is normalised and projected once, as ours is."""
        block = under(weights, "layers.0.")
        mixer = under(block, "mixer.")
        each = layer_norm(under(block, "norm."), self.embedding) @ mixer["in_proj.weight"].T
        match self.spec.mixers[0]:
            case Mamba():
                return _mamba_of(mixer, each[tokens], self.unroll)
            case Attention(positions=positions):
                return _attention_of(mixer, each[tokens], positions == "rope")
            case options:
                raise ValueError(f"no mixer {options} in JAX")

    def _mix(self, weights: Weights, index: int, x: Array, *, last: bool) -> Array:
        block = under(weights, f"layers.{index}.")
        x, mixer = layer_norm(under(block, "norm."), x), under(block, "mixer.")
        match self.spec.mixers[index]:
            case Mamba():
                mix = last_of_mamba if last else mamba
                return mix(mixer, x, unroll=self.unroll)
            case Attention(positions=positions):
                attend = last_of_attention if last else attention
                return attend(mixer, x, rotary=positions == "rope")
            case options:
                raise ValueError(f"no mixer {options} in JAX")


def layer_norm(weights: Weights, x: Array) -> Array:
    """As `torch.nn.LayerNorm`."""
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred**2).mean(axis=-1, keepdims=True)
    return centred * lax.rsqrt(variance + 1e-5) * weights["weight"] + weights["bias"]


def under(weights: Weights, prefix: str) -> Weights:
    """The weights whose names start with the prefix, without it."""
    return {name.removeprefix(prefix): w for name, w in weights.items() if name.startswith(prefix)}
