"""The compiled kernels: found, chosen, and called through their C ABI.

Tensors cross as pointers and strides, in the structs of `structs.py`; nothing here depends on
torch's own C++ interface, so one build serves every torch and every Python.
"""

import ctypes
import os
from importlib.util import find_spec

import torch
from torch import Tensor

from recall_arena.kernels import plain, structs

CHOICE = "RECALL_ARENA_KERNELS"
DEFINITION = "definition"
INSTRUCTION_SETS = ("avx512", "avx2", "baseline")
LARGEST_STATE = 256
LARGEST_WINDOW = 16
LARGEST_HEAD = 256
SCAN_CHUNK = 8
DELTA_CHUNK = 16
DELTA_BY_PRODUCTS = 32
UNKNOWN_KIND = 2  # what blocks and stacks return
SHARDS = 16  # of a batch, whose partial gradients are apart: as many threads may work on them
WORTH_A_THREAD = 1 << 17  # elements below which a second thread costs more than it brings


INSTALL_AGAIN = (
    "the compiled kernels are of another version than this package; "
    "install it again with `pip install .`"
)


def check_layouts(text: str) -> None:
    """Compare the layouts that the library tells, a line for each struct, with `structs.py`.

    Raises ImportError that names the first struct and field to differ.
    """
    lines = map(str.split, text.splitlines())
    theirs = {name: ("size:" + size, *fields) for name, size, *fields in lines}
    for name, struct in structs.STRUCTS.items():
        offsets = {field: getattr(struct, field).offset for field, *_ in struct._fields_}
        ours = {field: str(n) for field, n in offsets.items()} | {
            "size": str(ctypes.sizeof(struct))
        }
        library = dict(field.split(":") for field in theirs.get(name, ()))
        for field in (*ours, *library):
            if ours.get(field) != library.get(field):
                raise ImportError(
                    f"struct {name}, {field}: {library.get(field, 'none')} in the library, "
                    f"{ours.get(field, 'none')} in Python: {INSTALL_AGAIN}"
                )


def _find() -> tuple[ctypes.CDLL | None, str]:
    """Load the library that the installation built, or say why there is none.

    Raises ImportError for a choice that there is not, or that cannot be had here.
    """
    choice, choices = os.environ.get(CHOICE, ""), (DEFINITION, *INSTRUCTION_SETS)
    if choice and choice not in choices:
        raise ImportError(f"{CHOICE} must be one of {', '.join(choices)}, got {choice!r}")
    if choice == DEFINITION:
        return None, f"the PyTorch definitions, because {CHOICE}={DEFINITION}"
    installed = find_spec("recall_arena._recall_kernels")
    if installed is None or installed.origin is None:
        return None, (
            "the PyTorch definitions, because this installation was built without a C++ compiler"
        )
    library = ctypes.CDLL(installed.origin)
    try:
        for name in ("recall_instruction_set", "recall_layouts", "recall_build"):
            getattr(library, name).restype = ctypes.c_char_p
    except AttributeError as missing:
        raise ImportError(f"{missing}: {INSTALL_AGAIN}") from None
    check_layouts(library.recall_layouts().decode())
    if choice and library.recall_choose_instruction_set(choice.encode()) != 0:
        raise ImportError(f"{CHOICE}={choice}: there are no such kernels here")
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


def build() -> str | None:
    """A hash of the sources that the compiled kernels were built from, or None without them."""
    return None if LIBRARY is None else LIBRARY.recall_build().decode()


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
    """Whether the compiled kernels exist and may read these tensors, of which none is empty."""
    return (
        LIBRARY is not None
        and plain.eager()
        and all(plain.readable(t) and t.numel() > 0 for t in tensors)
    )


def given(x: Tensor | None) -> tuple[Tensor, ...]:
    """The tensor, where there is one."""
    return () if x is None else (x,)


def address(x: Tensor | None) -> int | None:
    """Where the tensor lies; None for none."""
    return None if x is None else x.data_ptr()


def rows(x: Tensor) -> Tensor:
    """`x` itself if one stride leads from each position to the next, else a contiguous copy."""
    by_rows = x.stride(2) == 1 and x.stride(0) == x.shape[1] * x.stride(1)
    return x if by_rows else x.clone(memory_format=torch.contiguous_format)


def partial_gradients(batch: int, weights: tuple[Tensor, ...]) -> Tensor:
    """Room for the weights' gradients from each shard of a batch: (shards, numbers)."""
    return weights[0].new_empty(min(SHARDS, batch), sum(w.numel() for w in weights))


def threads(elements: int) -> int:
    """How many threads work on a call that works through so many elements."""
    return max(1, min(torch.get_num_threads(), elements // WORTH_A_THREAD))


def call(name: str, arguments: ctypes.Structure, workers: int) -> int:
    """Call the kernel `name`, and hand on what it returns; the caller keeps the tensors alive.

    Raises ValueError if a block's kind is none that the library knows.
    """
    assert LIBRARY is not None
    returned: int = LIBRARY[name](ctypes.byref(arguments), ctypes.c_int(workers))
    if returned == UNKNOWN_KIND:
        raise ValueError(f"{name}: the library does not know this kind of mixer")
    return returned
