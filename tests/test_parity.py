"""The mixers against other people's code with the same weights, and Mamba's first weights
against the paper (arXiv:2312.00752, section 3.6).
"""

import math
from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from scipy.stats import kstest
from torch import Tensor, nn
from torch.nn import functional as F

from recall_arena.kernels.causal_attention import rotary_table, rotate
from recall_arena.mixers import Attention, Mamba
from recall_arena.model import ModelSpec, SequenceModel
from recall_arena.seeds import generator


@pytest.fixture
def float64_throughout(monkeypatch: pytest.MonkeyPatch) -> None:
    """The peers compute A, D and B in float32 whatever they are given; here in float64."""
    monkeypatch.setattr(Tensor, "float", Tensor.double)


def value_and_gradients(module: Callable[[Tensor], Tensor], x: Tensor) -> dict[str, Tensor]:
    """The output for x, and the gradients of x and of each parameter, by name."""
    x = x.detach().requires_grad_()
    wanted = {"x": x, **dict(module.named_parameters())}
    out = module(x)
    arriving = torch.randn(out.shape, generator=generator("arriving")).to(out.dtype)
    gradients = torch.autograd.grad(out, list(wanted.values()), arriving)
    return {"value": out, **dict(zip(wanted, gradients, strict=True))}


def assert_near(actual: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    assert actual.keys() == expected.keys()
    for name, wanted in expected.items():
        assert actual[name].shape == wanted.shape, name
        error, largest = (actual[name] - wanted).abs().max(), wanted.abs().max()
        assert error <= tolerance * largest, f"{name} is off by {error:.1e} beside {largest:.1e}"


# Mamba


def transformers_mamba(use_mambapy: bool) -> Callable[[int], nn.Module]:
    def build(width: int) -> nn.Module:
        mamba = pytest.importorskip("transformers.models.mamba.modeling_mamba")
        config = mamba.MambaConfig(
            hidden_size=width, state_size=16, num_hidden_layers=1, use_mambapy=use_mambapy
        )
        return mamba.MambaMixer(config, layer_idx=0)

    return build


def mambapy(pscan: bool) -> Callable[[int], nn.Module]:
    def build(width: int) -> nn.Module:
        mamba = pytest.importorskip("mambapy.mamba")
        return mamba.MambaBlock(mamba.MambaConfig(d_model=width, n_layers=1, pscan=pscan))

    return build


each_mamba = pytest.mark.parametrize(
    "build",
    [transformers_mamba(use_mambapy=False), mambapy(pscan=True), mambapy(pscan=False)],
    ids=["transformers", "mambapy", "mambapy, step by step"],
)


@each_mamba
@pytest.mark.parametrize("length", [1, 3, 17, 64])
@pytest.mark.parametrize("width", [8, 64])
@pytest.mark.usefixtures("float64_throughout")
def test_mamba_equals_other_implementations_with_the_same_weights(build, width, length):
    torch.manual_seed(0)
    ours, theirs = Mamba(width).double(), build(width).double()
    x = torch.randn(2, length, width, dtype=torch.double)

    theirs.load_state_dict(ours.state_dict(), strict=True)
    assert_near(value_and_gradients(ours, x), value_and_gradients(theirs, x), 1e-12)


@each_mamba
@pytest.mark.parametrize("width", [8, 64])
def test_mamba_loads_the_weights_of_other_implementations(build, width):
    """In float32, so that on most machines the compiled kernels run; errors of 1e-6 are usual."""
    torch.manual_seed(0)
    ours, theirs = Mamba(width), build(width)
    x = torch.randn(2, 64, width)

    ours.load_state_dict(theirs.state_dict(), strict=True)
    assert_near(value_and_gradients(ours, x), value_and_gradients(theirs, x), 1e-5)


# Attention


@pytest.mark.parametrize(("width", "heads"), [(8, 1), (8, 8), (64, 4)])
@pytest.mark.parametrize("length", [1, 17])
def test_attention_equals_torchs_module(width, heads, length):
    torch.manual_seed(0)
    ours = Attention(width, heads=heads).double()
    theirs = nn.MultiheadAttention(width, heads, bias=False, batch_first=True).double()
    theirs.in_proj_weight.data.copy_(ours.in_proj.weight)
    theirs.out_proj.weight.data.copy_(ours.out_proj.weight)
    x = torch.randn(2, length, width, dtype=torch.double)

    future = torch.ones(length, length, dtype=torch.bool).triu(1)
    expected, _ = theirs(x, x, x, attn_mask=future, need_weights=False)
    torch.testing.assert_close(ours(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("width", "heads"), [(8, 1), (8, 2), (64, 4)])
@pytest.mark.usefixtures("float64_throughout")
def test_rotary_attention_equals_llamas(width, heads):
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    torch.manual_seed(0)
    ours, config = Attention(width, heads=heads, rotary=True).double(), llama_config(width, heads)
    theirs = llama.LlamaAttention(config, layer_idx=0).double()
    query, key, value = ours.in_proj.weight.chunk(3)
    theirs.load_state_dict(
        {
            "q_proj.weight": query,
            "k_proj.weight": key,
            "v_proj.weight": value,
            "o_proj.weight": ours.out_proj.weight,
        },
        strict=True,
    )
    x = torch.randn(2, 65, width, dtype=torch.double)

    turns = llama.LlamaRotaryEmbedding(config)(x, torch.arange(65).unsqueeze(0))
    future = torch.full((65, 65), -math.inf, dtype=torch.double).triu(1)
    expected, _ = theirs(x, position_embeddings=turns, attention_mask=future[None, None])
    # Their angles start from frequencies in float32, 65 positions long.
    torch.testing.assert_close(ours(x), expected, rtol=0, atol=1e-5)


# Rotary positions


def llama_config(width: int, heads: int) -> object:
    llama: ModuleType = pytest.importorskip("transformers.models.llama.modeling_llama")
    return llama.LlamaConfig(
        hidden_size=width, num_attention_heads=heads, attn_implementation="sdpa"
    )


def heads_of(width: int, length: int) -> Tensor:
    return torch.randn(2, 3, length, width, generator=generator(width), dtype=torch.double)


def turn(x: Tensor, positions: Tensor, base: float = 10_000.0) -> Tensor:
    return rotate(x, rotary_table(positions.to(x.dtype), x.shape[-1], base))


@pytest.mark.parametrize("width", [2, 8, 64])
def test_rotation_equals_llamas(width):
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    q, k = heads_of(width, 193), heads_of(width, 193).flip(0)
    positions = torch.arange(193)

    cos, sin = llama.LlamaRotaryEmbedding(llama_config(width, 1))(q, positions.unsqueeze(0))
    expected = llama.apply_rotary_pos_emb(q, k, cos, sin)
    for ours, theirs in zip((turn(q, positions), turn(k, positions)), expected, strict=True):
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
    turned = torch.complex(x[..., :half], x[..., half:]) * torch.polar(
        torch.ones_like(angle), angle
    )
    expected = torch.cat([turned.real, turned.imag], dim=-1)
    torch.testing.assert_close(turn(x, positions, base), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("shift", [1, 192, 100_000])
def test_scores_depend_on_relative_positions_only(shift):
    q, k = heads_of(8, 12), heads_of(8, 12).flip(0)
    positions = torch.arange(12)

    def scores(offset: int) -> Tensor:
        return turn(q, positions + offset) @ turn(k, positions + offset).transpose(2, 3)

    torch.testing.assert_close(scores(shift), scores(0), rtol=0, atol=1e-9)
    assert not torch.allclose(scores(0), q @ k.transpose(2, 3), atol=1e-2)


def test_rotation_preserves_norms_and_leaves_position_zero_alone():
    x, positions = heads_of(8, 12), torch.arange(12) * 10_000
    turned = turn(x, positions)
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1), rtol=1e-12, atol=0)
    assert torch.equal(turned[:, :, 0], x[:, :, 0])
    assert not torch.allclose(turned[:, :, 1:], x[:, :, 1:], atol=1e-2)


@pytest.mark.parametrize(("position", "tolerance"), [(192, 1e-4), (10_000, 5e-3), (100_000, 5e-2)])
def test_rotation_in_float32_is_right_far_beyond_any_training_length(position, tolerance):
    """Angles grow with the position, and float32 resolves an angle p to p * 6e-8."""
    x, positions = heads_of(8, 1), torch.tensor([position])
    single = turn(x.float(), positions)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), turn(x, positions), rtol=0, atol=tolerance)


# Mamba's first weights


def fresh_mamba(width: int) -> Mamba:
    torch.manual_seed(0)
    return Mamba(width)


def mamba_in_a_model(width: int) -> Mamba:
    """The last of three layers, after everything that a model does to its parts."""
    torch.manual_seed(0)
    model = SequenceModel(ModelSpec(layers=("mamba", "attention", "mamba"), width=width))
    mixer = model.layers[2].mixer
    assert isinstance(mixer, Mamba)
    return mixer


each_origin = pytest.mark.parametrize("build", [fresh_mamba, mamba_in_a_model])


@each_origin
@pytest.mark.parametrize("width", [8, 64])
def test_each_channel_starts_with_decays_of_1_to_16_and_an_open_skip(build, width):
    mamba = build(width)
    expected = torch.arange(1, 17).double().log().expand(2 * width, 16)
    torch.testing.assert_close(mamba.A_log.double(), expected, rtol=1e-6, atol=0)
    assert torch.equal(mamba.D, torch.ones(2 * width))


@each_origin
def test_time_steps_start_log_uniform_between_a_thousandth_and_a_tenth(build):
    steps = F.softplus(build(512).dt_proj.bias.double()).detach()
    assert steps.min() >= 1e-3 * (1 - 1e-5)
    assert steps.max() <= 1e-1 * (1 + 1e-5)
    position = (steps.log() - math.log(1e-3)) / math.log(100)
    assert kstest(position.numpy(), "uniform").pvalue > 0.01


@each_origin
@pytest.mark.parametrize(("width", "rank"), [(8, 1), (64, 4), (512, 32), (100, 7)])
def test_the_time_steps_weight_starts_uniform_within_one_over_the_root_of_its_rank(
    build, width, rank
):
    weight = build(width).dt_proj.weight.detach().double()
    bound = rank**-0.5
    assert weight.shape == (2 * width, rank)
    assert weight.abs().max() <= bound * (1 + 1e-6)
    assert kstest((weight.flatten() / bound + 1).numpy() / 2, "uniform").pvalue > 0.01


def test_two_mambas_in_a_model_start_different():
    torch.manual_seed(0)
    first, second = SequenceModel(ModelSpec(layers=("mamba", "mamba"))).layers
    for name in ("in_proj.weight", "dt_proj.bias", "dt_proj.weight"):
        assert not torch.equal(first.mixer.get_parameter(name), second.mixer.get_parameter(name))
