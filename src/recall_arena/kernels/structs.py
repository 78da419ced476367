"""The structs that cross the kernels' C ABI, as `native/operations.hpp` declares them."""

import ctypes
from enum import IntEnum

from torch import Tensor


class Kind(IntEnum):
    """Which mixer a layer is, or that it is none, as the library knows it."""

    MAMBA = 1
    ATTENTION = 2
    GATED_DELTA = 3
    MLP = 4


def _fields(integers: str, pointers: str) -> list[tuple[str, type]]:
    return [(name, ctypes.c_int64) for name in integers.split()] + [
        (name, ctypes.c_void_p) for name in pointers.split()
    ]


class Scan(ctypes.Structure):
    """The arguments of the selective scan."""

    _fields_ = (
        _fields("batch length channels state", "u delta B C z")
        + _fields("u_stride delta_stride B_stride C_stride z_stride", "A D delta_bias")
        + _fields("", "initial final out states grad_out")
        + _fields("grad_out_stride", "grad_u grad_delta grad_z grad_B grad_C")
        + _fields("", "grad_A grad_D grad_bias recomputed")
        + _fields("last", "")
    )


class Conv(ctypes.Structure):
    """The arguments of the causal convolution."""

    _fields_ = (
        _fields("batch length channels window linear", "x")
        + _fields("x_stride", "weight bias out grad_out")
        + _fields("grad_out_stride", "grad_x")
        + _fields("grad_x_stride", "grad_weight grad_bias")
    )


class Heads(ctypes.Structure):
    """A tensor (batch, heads, positions, head_width): where it begins, and its strides."""

    _fields_ = [("data", ctypes.c_void_p), *_fields("batch head row", "")]


class Attention(ctypes.Structure):
    """The arguments of causal attention."""

    _fields_ = (
        _fields("batch heads length queries width", "")
        + [(name, Heads) for name in ("q", "k", "v")]
        + _fields("", "cosines sines")
        + [("out", Heads), *_fields("", "softmax")]
        + [(name, Heads) for name in ("grad_out", "grad_q", "grad_k", "grad_v")]
    )


class Delta(ctypes.Structure):
    """The arguments of the gated delta rule."""

    _fields_ = (
        *_fields("batch length heads key_width value_width", "q k v"),
        *_fields("q_stride k_stride v_stride", "g beta"),
        *_fields("g_stride g_head beta_stride beta_head g_by_channel normalised", ""),
        ("scale", ctypes.c_double),
        *_fields("", "initial final out states errors grad_out grad_final grad_q grad_k grad_v"),
        *_fields("grad_key_stride grad_v_stride", "grad_g grad_beta grad_initial"),
        *_fields("last", ""),
    )


class Norm(ctypes.Structure):
    """A layer norm; without a bias RMS norm, without weights none."""

    _fields_ = [*_fields("", "weight bias"), ("epsilon", ctypes.c_double)]


class Tokens(ctypes.Structure):
    """Which of the distinct rows of x each position has; without any, x has a row for each."""

    _fields_ = [*_fields("", "rows"), *_fields("distinct", "")]


class Block(ctypes.Structure):
    """The head of every mixer's struct: what its residual block reads and writes."""

    _fields_ = (
        *_fields("kind batch length width last", "x"),
        ("tokens", Tokens),
        ("norm", Norm),
        *_fields("", "in_proj in_bias out_proj out_bias out grad_out grad_x gradients"),
        *_fields("shards numbers", ""),
    )


class Mamba(ctypes.Structure):
    """The arguments of Mamba's mixer."""

    _fields_ = (
        ("block", Block),
        *_fields("channels state window rank", "conv_weight conv_bias x_proj dt_weight dt_bias"),
        *_fields("", "A_log D before z u selection states"),
    )


class SelfAttention(ctypes.Structure):
    """The arguments of the attention mixer."""

    _fields_ = (
        ("block", Block),
        *_fields("heads q_window k_window v_window", "q_conv k_conv v_conv"),
        *_fields("", "cosines sines q mixed kv softmax"),
    )


class MLP(ctypes.Structure):
    """The arguments of an MLP."""

    _fields_ = (("block", Block), *_fields("hidden gated", "before"))


class GatedDelta(ctypes.Structure):
    """The arguments of the gated delta rule's mixer."""

    _fields_ = (
        ("block", Block),
        *_fields("heads key_width value_width window decays gate", ""),
        *((name, ctypes.c_double) for name in ("beta_scale", "epsilon")),
        *_fields("", "conv_weight A_log dt_bias o_norm before qkv gates z o states errors"),
    )


class Place(ctypes.Structure):
    """Where a weight's gradient goes."""

    _fields_ = [*_fields("", "to"), *_fields("rows columns", "")]


class Stack(ctypes.Structure):
    """The arguments of a whole model."""

    _fields_ = (
        *_fields("batch length width vocabulary depth asked", "tokens answers where"),
        *_fields("", "embedding positions"),
        *_fields("gathered embeds", "layers"),
        ("norm", Norm),
        *_fields("", "lm_head logits losses gradients"),
        *_fields("shards numbers", "places"),
        *_fields("weights", ""),
    )


STRUCTS: dict[str, type[ctypes.Structure]] = {
    struct.__name__: struct
    for struct in (
        *(Scan, Conv, Heads, Attention, Delta, Norm, Tokens),
        *(Block, Mamba, SelfAttention, MLP, GatedDelta, Place, Stack),
    )
}
"""All of them by the name that the library gives them."""

Mixer = Mamba | SelfAttention | MLP | GatedDelta
"""The structs that begin with a `Block`."""


def point(struct: ctypes.Structure, tensors: dict[str, Tensor]) -> None:
    """Point fields of a struct to tensors, which the caller keeps alive."""
    for name, tensor in tensors.items():
        setattr(struct, name, tensor.data_ptr())


def heads(x: Tensor) -> Heads:
    """`x` (batch, heads, positions, head_width) for the kernel; its last axis is contiguous."""
    batch, head, row, _ = x.stride()
    return Heads(x.data_ptr(), batch, head, row)


def rotary(table: Tensor | None) -> dict[str, int]:
    """The fields of a struct for RoPE's table (2, length, head_width / 2), where there is one."""
    if table is None:
        return {}
    assert table.is_contiguous()
    cosines, sines = table
    return {"cosines": cosines.data_ptr(), "sines": sines.data_ptr()}
