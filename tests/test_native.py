"""The library itself: the layout of its structs, its sources, and the kinds that it refuses."""

import ctypes
import hashlib
import re
from pathlib import Path

import pytest
import torch
from kernel_checks import needs_kernels

from recall_arena.kernels import native, structs

SOURCES = Path(__file__).parent.parent / "native"

pytestmark = needs_kernels


def layouts() -> str:
    return native.LIBRARY.recall_layouts().decode()


def test_the_library_tells_the_layout_of_every_struct():
    native.check_layouts(layouts())
    assert {line.split()[0] for line in layouts().splitlines()} == set(structs.STRUCTS)


@pytest.mark.parametrize(
    ("pattern", "instead", "message"),
    [
        ("Mamba (.*) state:176", r"Mamba \1 state:184", "Mamba, state: 184 in .* 176 in Python"),
        ("Block (.*) last:32", r"Block \1", "Block, last: none in the library, 32 in Python"),
        ("Norm (.*)", r"Norm \1 shift:24", "Norm, shift: 24 in the library, none in Python"),
        ("Scan 264", "Scan 272", "Scan, size: 272 in the library, 264 in Python"),
        ("Place .*\n", "", "Place, to: none in the library"),
    ],
)
def test_another_layout_is_refused_by_the_name_of_its_field(pattern, instead, message):
    broken, count = re.subn(pattern, instead, layouts())
    assert count
    with pytest.raises(ImportError, match=f"struct {message}.*pip install"):
        native.check_layouts(broken)


def test_the_build_is_the_hash_of_the_sources():
    sources = sorted([*SOURCES.glob("*.[ch]pp"), SOURCES / "CMakeLists.txt"])
    hashes = (f"{s.name} {hashlib.sha256(s.read_bytes()).hexdigest()}\n" for s in sources)
    assert native.build() == hashlib.sha256("".join(hashes).encode()).hexdigest()


@pytest.mark.parametrize("kind", [0, max(structs.Kind) + 1, -1, 1 << 40])
def test_an_unknown_kind_is_refused_before_anything_is_done(kind):
    out = torch.full((2, 3, 4), 7.0)
    block = structs.Block(kind=kind, batch=2, length=3, width=4, shards=1, out=out.data_ptr())
    for call in ("recall_block_forward", "recall_block_backward"):
        with pytest.raises(ValueError, match=f"{call}: .* kind"):
            native.call(call, block, 1)

    layers = (ctypes.c_void_p * 1)(ctypes.addressof(block))
    stack = structs.Stack(batch=2, length=3, width=4, depth=1, layers=ctypes.addressof(layers))
    for call in ("recall_stack_logits", "recall_stack_gradients"):
        with pytest.raises(ValueError, match=f"{call}: .* kind"):
            native.call(call, stack, 1)
    assert (out == 7).all()


@pytest.mark.parametrize("token", [-1, 5])
def test_a_token_outside_of_the_embedding_is_refused(token):
    tokens = torch.tensor([[0, 4, token]])
    rows = structs.Tokens(rows=tokens.data_ptr(), distinct=5)
    block = structs.Block(
        kind=structs.Kind.MAMBA, batch=1, length=3, width=4, tokens=rows, shards=1
    )
    assert native.call("recall_block_forward", block, 1) == 1
    assert native.call("recall_block_backward", block, 1) == 1
