"""The compiled kernels: found, chosen, and called through their C ABI.

`native/operations.hpp` declares the structs that are mirrored here.  Tensors cross
as pointers and strides; nothing here depends on torch's own C++ interface, so one build
serves every torch and every Python.
"""

import ctypes
import os
from importlib.util import find_spec

import torch
from torch import Tensor

CHOICE = "RECALL_ARENA_KERNELS"
LARGEST_STATE = 256
LARGEST_WINDOW = 16
LARGEST_HEAD = 256
SCAN_CHUNK = 8
PORTIONS = 16  # of a batch, whose gradients are added up apart: as many threads may work on them
SMALLEST_SHARE = 1 << 17  # elements below which a second thread costs more than it brings


def _fields(integers: str, pointers: str) -> list[tuple[str, type]]:
    return [(name, ctypes.c_int64) for name in integers.split()] + [
        (name, ctypes.c_void_p) for name in pointers.split()
    ]


class Scan(ctypes.Structure):
    """The arguments of the selective scan, as `native/operations.hpp` lays them out."""

    _fields_ = (
        _fields("batch length channels state", "u delta B C z")
        + _fields("u_stride delta_stride B_stride C_stride z_stride", "A D delta_bias")
        + _fields("", "initial final out states grad_out")
        + _fields("grad_out_stride", "grad_u grad_delta grad_z grad_B grad_C")
        + _fields("", "grad_A grad_D grad_bias again")
        + _fields("last", "")
    )


class Conv(ctypes.Structure):
    """The arguments of the causal convolution, as `native/operations.hpp` lays them out."""

    _fields_ = (
        _fields("batch length channels window", "x")
        + _fields("x_stride", "weight bias out grad_out")
        + _fields("grad_out_stride", "grad_x grad_weight grad_bias")
    )


class Heads(ctypes.Structure):
    """A tensor (batch, heads, positions, head_width): where it begins, and its strides."""

    _fields_ = [("data", ctypes.c_void_p), *_fields("batch head row", "")]


class Attention(ctypes.Structure):
    """The arguments of causal attention, as `native/operations.hpp` lays them out."""

    _fields_ = (
        _fields("batch heads length queries width", "")
        + [(name, Heads) for name in ("q", "k", "v")]
        + _fields("", "cosines sines")
        + [("out", Heads), *_fields("", "softmax")]
        + [(name, Heads) for name in ("grad_out", "grad_q", "grad_k", "grad_v")]
    )


class Norm(ctypes.Structure):
    """A layer norm; without weights, none."""

    _fields_ = [*_fields("", "weight bias"), ("epsilon", ctypes.c_double)]


class Tokens(ctypes.Structure):
    """Which of the distinct rows of x each position has; without any, x has a row for each."""

    _fields_ = [*_fields("", "rows"), *_fields("distinct", "")]


class Mamba(ctypes.Structure):
    """The arguments of Mamba's mixer, as `native/operations.hpp` lays them out."""

    _fields_ = (
        *_fields("batch length width channels state window rank", "x"),
        ("tokens", Tokens),
        ("norm", Norm),
        *_fields("", "in_proj conv_weight conv_bias x_proj dt_weight dt_bias A_log D out_proj"),
        *_fields("", "out before z u selection states grad_out grad_x gradients"),
        *_fields("portions numbers last", ""),
    )


class SelfAttention(ctypes.Structure):
    """The arguments of the attention mixer, as `native/operations.hpp` lays them out."""

    _fields_ = (
        *_fields("batch length width heads queries", "x"),
        ("tokens", Tokens),
        ("norm", Norm),
        *_fields("", "in_proj out_proj cosines sines"),
        *_fields("", "out q mixed kv softmax grad_out grad_x gradients"),
        *_fields("portions numbers", ""),
    )


class Layer(ctypes.Structure):
    """One of a stack's layers: a pointer to a `Mamba` or to a `SelfAttention`."""

    _fields_ = _fields("", "mamba attention")


class Place(ctypes.Structure):
    """Where a weight's gradient goes, as `native/operations.hpp` lays it out."""

    _fields_ = [*_fields("", "to"), *_fields("rows columns", "")]


class Stack(ctypes.Structure):
    """The arguments of a whole model, as `native/operations.hpp` lays them out."""

    _fields_ = (
        *_fields("batch length width vocabulary depth", "tokens answers embedding positions"),
        *_fields("looked_up", "layers"),
        ("norm", Norm),
        *_fields("", "lm_head logits losses gradients"),
        *_fields("portions numbers", "places"),
        *_fields("weights", ""),
    )


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


def _find() -> tuple[ctypes.CDLL | None, str]:
    """Load the library that the installation built, or say why there is none."""
    if os.environ.get(CHOICE) == "definition":
        return None, f"the PyTorch definitions, because {CHOICE}=definition"
    installed = find_spec("recall_arena._recall_kernels")
    if installed is None or installed.origin is None:
        return None, (
            "the PyTorch definitions, because this installation was built without a C++ compiler"
        )
    library = ctypes.CDLL(installed.origin)
    library.recall_instruction_set.restype = ctypes.c_char_p
    _share_team(library)
    return library, "compiled"


def _share_team(library: ctypes.CDLL) -> None:
    """Let the kernels' threads be those of the OpenMP that torch has loaded, where it is GNU's."""
    try:
        parallel = ctypes.CDLL(None).GOMP_parallel
    except (AttributeError, OSError, TypeError):  # another OpenMP or none, or Windows
        return
    library.recall_use_team(parallel)


LIBRARY, REASON = _find()


def instruction_set() -> str | None:
    """The instruction set that the compiled kernels use, or None without them."""
    return None if LIBRARY is None else LIBRARY.recall_instruction_set().decode()


def choose_instruction_set(name: str) -> None:
    """Use the kernels compiled for `name`: avx512, avx2 or baseline.

    Raises ValueError if there are none, or if this processor cannot run them.
    """
    if LIBRARY is None or LIBRARY.recall_choose_instruction_set(name.encode()) != 0:
        raise ValueError(f"no kernels for instruction set {name!r} here")


def describe() -> str:
    """One line for people and for records: which kernels run, and why."""
    return REASON if LIBRARY is None else f"compiled, {instruction_set()}"


def fits(*tensors: Tensor) -> bool:
    """Whether the compiled kernels exist and take these tensors: float32, CPU, not empty."""
    return LIBRARY is not None and all(
        t.dtype == torch.float32 and t.is_cpu and t.numel() > 0 for t in tensors
    )


def given(x: Tensor | None) -> tuple[Tensor, ...]:
    """The tensor, where there is one."""
    return () if x is None else (x,)


def rows(x: Tensor) -> Tensor:
    """`x` itself if one stride leads from each position to the next, else a contiguous copy."""
    by_rows = x.stride(2) == 1 and x.stride(0) == x.shape[1] * x.stride(1)
    return x if by_rows else x.clone(memory_format=torch.contiguous_format)


def shares(batch: int, weights: tuple[Tensor, ...]) -> Tensor:
    """Room for the weights' gradients from each portion of a batch: (portions, numbers)."""
    return weights[0].new_empty(min(PORTIONS, batch), sum(w.numel() for w in weights))


def threads(elements: int) -> int:
    """How many threads share a call that works through so many elements."""
    return max(1, min(torch.get_num_threads(), elements // SMALLEST_SHARE))


def call(name: str, arguments: ctypes.Structure, workers: int) -> int:
    """Call the kernel `name`, and hand on what it returns; the caller keeps the tensors alive."""
    assert LIBRARY is not None
    returned: int = LIBRARY[name](ctypes.byref(arguments), ctypes.c_int(workers))
    return returned
