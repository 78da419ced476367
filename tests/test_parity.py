"""The mixers against other people's code with the same weights."""

import math
from collections.abc import Callable

import pytest
import torch
from kernel_checks import assert_near
from torch import Tensor, nn

from recall_arena.mixers import Attention, GatedDelta, Mamba
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
    ours, theirs = Mamba().build(width).double(), build(width).double()
    x = torch.randn(2, length, width, dtype=torch.double)

    theirs.load_state_dict(ours.state_dict(), strict=True)
    assert_near(value_and_gradients(ours, x), value_and_gradients(theirs, x), 1e-12)


@each_mamba
@pytest.mark.parametrize("width", [8, 64])
def test_mamba_loads_the_weights_of_other_implementations(build, width):
    """In float32, so that on most machines the compiled kernels run; errors of 1e-6 are usual."""
    torch.manual_seed(0)
    ours, theirs = Mamba().build(width), build(width)
    x = torch.randn(2, 64, width)

    ours.load_state_dict(theirs.state_dict(), strict=True)
    assert_near(value_and_gradients(ours, x), value_and_gradients(theirs, x), 1e-5)


# The gated delta rule


def fused(theirs: nn.Module, decays: Tensor, gate: Tensor) -> dict[str, Tensor]:
    """The weights of a layer with a projection for each purpose, as ours are."""
    w = dict(theirs.state_dict())
    rows = [w["q_proj.weight"], w["k_proj.weight"], w["v_proj.weight"], w["b_proj.weight"]]
    return {
        "in_proj.weight": torch.cat([*rows, decays, gate]),
        "conv1d.weight": w["conv1d.weight"],
        "o_norm.weight": w["o_norm.weight"],
        "out_proj.weight": w["o_proj.weight"],
    }


@pytest.mark.parametrize("negative", [False, True])
@pytest.mark.filterwarnings("ignore")
def test_gated_delta_equals_that_of_olmo_hybrid(negative):
    olmo = pytest.importorskip("transformers.models.olmo_hybrid.modeling_olmo_hybrid")
    config = olmo.OlmoHybridConfig(
        hidden_size=16,
        num_hidden_layers=2,
        layer_types=["linear_attention", "full_attention"],
        linear_num_key_heads=2,
        linear_num_value_heads=2,
        linear_key_head_dim=6,
        linear_value_head_dim=12,
        linear_allow_neg_eigval=negative,
    )
    torch.manual_seed(0)
    theirs = olmo.OlmoHybridGatedDeltaNet(config, layer_idx=0)
    ours = GatedDelta(heads=2, key_width=6, negative_eigenvalues=negative).build(16)
    state = fused(theirs, theirs.a_proj.weight, theirs.g_proj.weight)
    ours.load_state_dict({**state, "A_log": theirs.A_log, "dt_bias": theirs.dt_bias})
    x = torch.randn(2, 70, 16)
    assert_near({"out": ours(x)}, {"out": theirs(x)}, 1e-5)


@pytest.mark.filterwarnings("ignore")
def test_gated_delta_by_channel_equals_kimi_delta_attention():
    """Their W_2 W_1 x is W x here."""
    kimi = pytest.importorskip("transformers.models.kimi_linear.modeling_kimi_linear")
    config = kimi.KimiLinearConfig(
        hidden_size=16,
        num_hidden_layers=1,
        layer_types=["linear_attention"],
        linear_num_heads=2,
        linear_head_dim=6,
    )
    torch.manual_seed(0)
    theirs = kimi.KimiLinearDeltaAttention(config, layer_idx=0)
    with torch.no_grad():
        theirs.forget_gate.A_log.normal_()
        theirs.forget_gate.dt_bias.normal_()
    ours = GatedDelta(heads=2, key_width=6, expand=1, decay="channel", gate="sigmoid").build(16)
    gate, forget = theirs.g_b_proj.weight @ theirs.g_a_proj.weight, theirs.forget_gate
    state = fused(theirs, forget.f_b_proj.weight @ forget.f_a_proj.weight, gate)
    rates = {"A_log": forget.A_log.flatten(), "dt_bias": forget.dt_bias}
    ours.load_state_dict({**state, **rates})
    x = torch.randn(2, 30, 16)
    # Their norm has another epsilon, which counts where an output is near zero.
    assert theirs.o_norm.variance_epsilon == pytest.approx(config.rms_norm_eps)
    theirs.o_norm.variance_epsilon = 1e-5
    assert_near({"out": ours(x)}, {"out": theirs(x)}, 1e-5)


# Attention


@pytest.mark.parametrize(("width", "heads"), [(8, 1), (8, 8), (64, 4)])
@pytest.mark.parametrize("length", [1, 17])
def test_attention_equals_torchs_module(width, heads, length):
    torch.manual_seed(0)
    ours = Attention(heads=heads).build(width).double()
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
    ours = Attention(heads=heads, positions="rope").build(width).double()
    config = llama.LlamaConfig(
        hidden_size=width, num_attention_heads=heads, attn_implementation="sdpa"
    )
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

    angles = llama.LlamaRotaryEmbedding(config)(x, torch.arange(65).unsqueeze(0))
    future = torch.full((65, 65), -math.inf, dtype=torch.double).triu(1)
    expected, _ = theirs(x, position_embeddings=angles, attention_mask=future[None, None])
    # Their angles start from frequencies in float32, 65 positions long.
    torch.testing.assert_close(ours(x), expected, rtol=0, atol=1e-5)
