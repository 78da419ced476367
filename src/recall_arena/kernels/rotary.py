"""Rotary positions: RoPE (Su et al. 2021, arXiv:2104.09864), xPos (Sun et al., arXiv:2212.10554).

RoPE rotates each pair of a query's and of a key's numbers by an angle proportional to the position
(section 3.2.2, eq. 15), so a score depends on the distance between the two alone.  Number i is
paired with i + width / 2, as in GPT-NeoX and Llama, and not with its neighbour.  xPos also
scales pair i of a query at position n by zeta_i^(n / 512), and of a key by the inverse: scores
fade with the distance.  Nothing here fixes a length: tables are made for the positions at hand.
"""

from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from recall_arena.kernels import plain
from recall_arena.shapes import Heads

RotaryTable = Float[Tensor, "2 length half_width"]
"""Cosines and sines by position, xPos's scaled."""

BASE = 10_000.0
SCALE_BASE = 512.0  # positions over which xPos scales by zeta once
GAMMA = 0.4
CACHED = 1024  # positions; decoding asks for a longer table at each step


def rotary_table(
    positions: Float[Tensor, " length"], head_width: int, base: float = BASE
) -> RotaryTable:
    """Of the angles position * base^(-2i / head_width), for each pair i of a head's numbers."""
    half = head_width // 2
    frequency = base ** -(torch.arange(half, dtype=positions.dtype, device=positions.device) / half)
    angles = positions.unsqueeze(1) * frequency
    return torch.stack([angles.cos(), angles.sin()])


def rotary_table_of(x: Tensor, length: int, head_width: int, base: float = BASE) -> RotaryTable:
    """The table of positions 0 .. length - 1, of x's type and on its device."""
    make = _cached_table if plain.eager() and length <= CACHED else _table
    return make(length, head_width, base, x.dtype, x.device)


def _table(
    length: int, head_width: int, base: float, dtype: torch.dtype, device: torch.device
) -> RotaryTable:
    exact = torch.promote_types(dtype, torch.float32)  # half precision has no 1000 and 1001
    positions = torch.arange(length, dtype=exact, device=device)
    return rotary_table(positions, head_width, base).to(dtype)


@lru_cache(maxsize=512)
@torch.inference_mode(False)
def _cached_table(
    length: int, head_width: int, base: float, dtype: torch.dtype, device: torch.device
) -> RotaryTable:
    """Cached, for each layer wants the same at each step."""
    return _table(length, head_width, base, dtype, device)


def xpos_tables(
    x: Tensor, length: int, head_width: int, base: float = BASE
) -> tuple[RotaryTable, RotaryTable]:
    """xPos's tables for queries and for keys at positions 0 .. length - 1.

    zeta_i = (2i / head_width + 0.4) / 1.4 (section 3.2 of arXiv:2212.10554).  Positions count
    from the middle, so that scales stay in range to 70,000 of them; scores are the same.
    """
    table, half = rotary_table_of(x, length, head_width, base), head_width // 2
    exact = torch.promote_types(x.dtype, torch.float32)
    pair, position = (torch.arange(n, dtype=exact, device=x.device) for n in (half, length))
    zeta = (pair / half + GAMMA) / (1 + GAMMA)
    scale = (zeta ** ((position - length // 2) / SCALE_BASE).unsqueeze(1)).to(x.dtype)
    return table * scale, table / scale


def rotate(x: Heads, rotary: RotaryTable) -> Heads:
    """Rotate the numbers i and i + w / 2 of each position's head, w its width, by its angle i."""
    left, right = x.chunk(2, dim=-1)
    cos, sin = rotary
    return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)
