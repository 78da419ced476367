"""Rotary positions (Su et al. 2021, arXiv:2104.09864) against Llama's and complex numbers."""

import pytest
import torch
from torch import Tensor

from recall_arena.kernels.rotary import rotary_table, rotate, xpos_tables
from recall_arena.seeds import generator


def heads_of(width: int, length: int) -> Tensor:
    return torch.randn(2, 3, length, width, generator=generator(width), dtype=torch.double)


def rotated(x: Tensor, positions: Tensor, base: float = 10_000.0) -> Tensor:
    return rotate(x, rotary_table(positions.to(x.dtype), x.shape[-1], base))


@pytest.mark.parametrize("width", [2, 8, 64])
def test_rotation_equals_llamas(width):
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    q, k = heads_of(width, 193), heads_of(width, 193).flip(0)
    positions = torch.arange(193)

    cos, sin = llama.LlamaRotaryEmbedding(
        llama.LlamaConfig(hidden_size=width, num_attention_heads=1)
    )(q, positions.unsqueeze(0))
    expected = llama.apply_rotary_pos_emb(q, k, cos, sin)
    for ours, theirs in zip((rotated(q, positions), rotated(k, positions)), expected, strict=True):
        # Their angles are rounded to float32: 193 radians to 8e-6.
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize("base", [10_000.0, 100.0])
@pytest.mark.parametrize("width", [2, 8, 64])
def test_rotation_multiplies_complex_numbers_by_unit_numbers(width, base):
    x, positions = heads_of(width, 17), torch.arange(17) * 6_250  # up to position 100,000
    half = width // 2
    angle = torch.tensor(
        [[p * base ** (-2 * i / width) for i in range(half)] for p in positions.tolist()],
        dtype=torch.double,
    )
    result = torch.complex(x[..., :half], x[..., half:]) * torch.polar(
        torch.ones_like(angle), angle
    )
    expected = torch.cat([result.real, result.imag], dim=-1)
    torch.testing.assert_close(rotated(x, positions, base), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("shift", [1, 192, 100_000])
def test_scores_depend_on_relative_positions_only(shift):
    q, k = heads_of(8, 12), heads_of(8, 12).flip(0)
    positions = torch.arange(12)

    def scores(offset: int) -> Tensor:
        return rotated(q, positions + offset) @ rotated(k, positions + offset).transpose(2, 3)

    torch.testing.assert_close(scores(shift), scores(0), rtol=0, atol=1e-9)
    assert not torch.allclose(scores(0), q @ k.transpose(2, 3), atol=1e-2)


def test_rotation_preserves_norms_and_leaves_position_zero_alone():
    x, positions = heads_of(8, 12), torch.arange(12) * 10_000
    result = rotated(x, positions)
    torch.testing.assert_close(result.norm(dim=-1), x.norm(dim=-1), rtol=1e-12, atol=0)
    assert torch.equal(result[:, :, 0], x[:, :, 0])
    assert not torch.allclose(result[:, :, 1:], x[:, :, 1:], atol=1e-2)


@pytest.mark.parametrize(("position", "tolerance"), [(192, 1e-4), (10_000, 5e-3), (100_000, 5e-2)])
def test_rotation_in_float32_is_right_far_beyond_any_training_length(position, tolerance):
    """Angles grow with the position, and float32 resolves an angle p to p * 6e-8."""
    x, positions = heads_of(8, 1), torch.tensor([position])
    single = rotated(x.float(), positions)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), rotated(x, positions), rtol=0, atol=tolerance)


def test_xpos_scores_are_the_papers():
    """Of arXiv:2212.10554, in its own complex form: pair by pair, with positions from 0."""
    length, width = 700, 6
    q, k = heads_of(width, length).unbind()
    of_q, of_k = xpos_tables(q, length, width)
    scores = rotate(q[None], of_q)[0] @ rotate(k[None], of_k)[0].mT

    half = width // 2
    pair, position = torch.arange(half, dtype=torch.float64), torch.arange(length).double()
    theta, zeta = 10_000.0 ** (-pair / half), (pair / half + 0.4) / 1.4
    turned = torch.polar(torch.ones(length, half).double(), position.unsqueeze(1) * theta)
    scale = zeta ** (position / 512).unsqueeze(1)
    of_q, of_k = (torch.complex(*x.chunk(2, dim=2)) * turned for x in (q, k))
    torch.testing.assert_close(scores, ((of_q * scale) @ (of_k / scale).conj().mT).real)
