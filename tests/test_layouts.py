"""Models of transformers and mamba-ssm come in, and ours go out, with the same logits."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers_models import transformers

from recall_arena.layouts import load_pretrained, save_pretrained
from recall_arena.model import SequenceModel, named
from recall_arena.seeds import generator

CONFIGS: tuple[dict[str, Any], ...] = (
    {},
    {"tie_word_embeddings": False, "use_bias": True},
    {"use_conv_bias": False, "conv_kernel": 3, "expand": 3, "time_step_rank": 3, "state_size": 5},
)
OURS = (
    "mamba, mamba; norm=rms",
    "mamba(state=4, expand=3, window=3, rank=2, bias=True); norm=rms; embedding=trained",
    "mamba(conv_bias=False, A_log_offset=0.5), mamba(conv_bias=False); norm=rms",
)


def tokens() -> Tensor:
    return torch.randint(16, (3, 13), generator=generator("tokens"))


def logits_of(model: SequenceModel) -> Tensor:
    return model(tokens(), torch.arange(13).expand(3, 13)).detach()


@torch.no_grad()
def shaken(model: nn.Module) -> nn.Module:
    """With weights large enough that each matters."""
    for i, weight in enumerate(model.parameters()):
        weight += 0.3 * torch.randn(weight.shape, generator=generator(i))
    return model


def theirs(**options: Any) -> nn.Module:
    sizes = {"vocab_size": 16, "hidden_size": 24, "num_hidden_layers": 2, "state_size": 8}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = transformers.MambaConfig(**{**sizes, **options})
        return shaken(transformers.MambaForCausalLM(config).eval())


def ours(text: str, width: int = 8) -> SequenceModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return shaken(SequenceModel(named(text, width=width)))


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5 * expected.abs().max().item())


# transformers


@pytest.mark.parametrize("options", CONFIGS, ids=str)
def test_a_model_of_transformers_comes_in_with_its_logits(options, tmp_path):
    model = theirs(**options)
    model.save_pretrained(tmp_path)
    mine = load_pretrained(tmp_path)
    with torch.no_grad():
        close(logits_of(mine), model(tokens()).logits)


@pytest.mark.parametrize("text", OURS)
def test_a_model_of_ours_is_one_of_transformers(text, tmp_path):
    model = ours(text)
    save_pretrained(model, tmp_path, "transformers")
    other, told = transformers.MambaForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(told.values())
    with torch.no_grad():
        close(other.eval()(tokens()).logits, logits_of(model))
    again = load_pretrained(tmp_path)
    assert torch.equal(logits_of(again), logits_of(model))


def test_half_precision_becomes_float32(tmp_path):
    model = theirs().bfloat16()
    model.save_pretrained(tmp_path)
    mine = load_pretrained(tmp_path)
    assert {weight.dtype for weight in mine.parameters()} == {torch.float32}
    with torch.no_grad():
        close(logits_of(mine), model.float()(tokens()).logits)


def test_a_tied_readout_is_a_copy_that_trains_by_itself(tmp_path):
    theirs().save_pretrained(tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    mine = load_pretrained(tmp_path)
    assert torch.equal(mine.lm_head.weight, mine.embedding.weight)
    assert mine.lm_head.weight.data_ptr() != mine.embedding.weight.data_ptr()


# mamba-ssm

PADDED = {
    "d_model": 24,
    "n_layer": 2,
    "vocab_size": 13,
    "ssm_cfg": {"d_state": 8, "dt_init": "random", "use_fast_path": True},
    "rms_norm": True,
    "residual_in_fp32": True,
    "fused_add_norm": True,
    "pad_vocab_size_multiple": 8,
}
"""As its first version wrote them: always tied, 13 tokens in 16 rows."""


def saved(folder: Path, config: dict[str, Any], weights: dict[str, Tensor]) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    torch.save(weights, folder / "pytorch_model.bin")
    return folder


def test_a_checkpoint_of_mamba_ssm_comes_in_with_the_logits_of_transformers(tmp_path):
    """Whose weights have the same names but for the embedding's, which it renames by itself."""
    model = theirs()
    weights = {
        name.replace("embeddings.", "embedding."): w for name, w in model.state_dict().items()
    }
    mine = load_pretrained(saved(tmp_path, PADDED, weights))
    assert mine.spec.vocabulary == 16
    with torch.no_grad():
        close(logits_of(mine), model(tokens()).logits)


def by_equations(config: dict[str, Any], weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """mamba-ssm's model of attention alone, from its folder: names, order and rotation are its."""
    cfg, heads = config["attn_cfg"], config["attn_cfg"]["num_heads"]

    def normed(x: Tensor, name: str) -> Tensor:
        weight, bias = weights[f"{name}.weight"], weights.get(f"{name}.bias")
        sizes = weight.shape
        if config["rms_norm"]:
            return F.rms_norm(x, sizes, weight, eps=1e-5)
        return F.layer_norm(x, sizes, weight, bias, eps=1e-5)

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))

    x = weights["backbone.embedding.weight"][x]
    for i in config["attn_layer_idx"]:
        at = f"backbone.layers.{i}"
        q, kv = linear(normed(x, f"{at}.norm"), f"{at}.mixer.in_proj").split([24, 48], dim=2)
        q, kv = q.unflatten(2, (heads, -1)), kv.unflatten(2, (2, heads, -1))
        k, v = kv.unbind(2)
        if size := cfg["rotary_emb_dim"]:
            assert size == 24 // heads
            angles = torch.arange(x.shape[1]).unsqueeze(1) * cfg["rotary_emb_base"] ** (
                -torch.arange(0, size, 2) / size
            )
            cos, sin = (f.repeat(1, 2).unsqueeze(1) for f in (angles.cos(), angles.sin()))
            q, k = (
                y * cos + torch.cat([-y[..., size // 2 :], y[..., : size // 2]], dim=3) * sin
                for y in (q, k)
            )
        q, k, v = (y.transpose(1, 2) for y in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=cfg["causal"])
        x = x + linear(mixed.transpose(1, 2).flatten(2), f"{at}.mixer.out_proj")
        if config["d_intermediate"]:
            y, gate = linear(normed(x, f"{at}.norm2"), f"{at}.mlp.fc1").chunk(2, dim=2)
            x = x + linear(y * F.silu(gate), f"{at}.mlp.fc2")
    return linear(normed(x, "backbone.norm_f"), "lm_head")


@pytest.mark.parametrize(
    "text",
    [
        "attention(heads=2), attention(heads=2)",
        "attention-rope(heads=3, base=500.0, bias=True); norm=rms",
        "attention; mlp=swiglu; mlp_expand=16; norm=rms",
    ],
)
def test_attention_of_ours_is_that_of_mamba_ssm(text, tmp_path):
    model = ours(text, width=24)
    save_pretrained(model, tmp_path, "mamba-ssm")
    config = json.loads((tmp_path / "config.json").read_text())
    weights = torch.load(tmp_path / "pytorch_model.bin", weights_only=True)
    close(by_equations(config, weights, tokens()), logits_of(model))
    assert torch.equal(logits_of(load_pretrained(tmp_path)), logits_of(model))


@pytest.mark.parametrize("text", [*OURS, "hybrid-b; norm=rms", "hybrid-a", "transformer-rope"])
def test_a_model_of_ours_comes_back_from_mamba_ssms_layout(text, tmp_path):
    model = ours(text)
    save_pretrained(model, tmp_path, "mamba-ssm")
    assert torch.equal(logits_of(load_pretrained(tmp_path)), logits_of(model))


# What is refused


@pytest.mark.parametrize(
    ("text", "layout", "reason"),
    [
        ("hybrid-a; norm=rms", "transformers", "layer 1 is attention: .* Mamba layers alone"),
        ("mamba", "transformers", "norm=layer: MambaForCausalLM has norm=rms"),
        ("mamba; norm=rms; mlp=gelu", "transformers", "mlp=gelu"),
        ("mamba; norm=rms; positions=sinusoidal", "transformers", "positions=sinusoidal"),
        ("mamba, mamba(state=4); norm=rms", "transformers", r"got mamba, mamba\(state=4\)"),
        ("mamba(window=1); norm=rms", "transformers", "a window of 1"),
        ("mamba, gated-delta", "mamba-ssm", "layer 1 is gated-delta"),
        ("attention(positions=xpos)", "mamba-ssm", "has rope or none"),
        ("attention(k_window=3)", "mamba-ssm", "k_window=3"),
        ("attention, attention(heads=2)", "mamba-ssm", "one set of options for all layers"),
        ("mamba; mlp=swiglu", "mamba-ssm", "of 32 hidden numbers"),
        ("transformer-learned", "mamba-ssm", "positions=learned"),
        ("mamba", "mamba_ssm", "did you mean|mamba-ssm"),
    ],
)
def test_what_a_layout_cannot_express_is_refused_before_anything_is_written(
    text, layout, reason, tmp_path
):
    with pytest.raises(ValueError, match=reason):
        save_pretrained(ours(text), tmp_path / "out", layout)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"model_type": "falcon_mamba"}, "model_type must be 'mamba', got 'falcon_mamba'"),
        ({"model_type": "mamba", "layer_norm_epsilon": 1e-6}, "layer_norm_epsilon must be 1e-05"),
        ({"model_type": "mamba", "hidden_act": "gelu"}, "hidden_act must be 'silu'"),
        ({"model_type": "mamba", "conv_kernel": 1}, "a window of 1"),
        ({"model_type": "mamba", "expand": 1.5}, "expand"),
        ({**PADDED, "ssm_cfg": {"layer": "Mamba2"}}, "layer must be 'Mamba1', got 'Mamba2'"),
        ({**PADDED, "ssm_cfg": {"headdim": 64}}, "headdim"),
        ({**PADDED, "attn_layer_idx": [1], "attn_cfg": {"num_heads": 2}}, "causal must be True"),
        (
            {**PADDED, "attn_layer_idx": [1], "attn_cfg": {"num_heads": 2, "num_heads_kv": 1}},
            "must be",
        ),
        ({"layers": 2}, "neither transformers' model_type nor mamba-ssm's d_model"),
    ],
)
def test_what_ours_do_not_have_is_refused(config, reason, tmp_path):
    with pytest.raises(ValueError, match=reason):
        load_pretrained(saved(tmp_path, config, {}))


def test_weights_that_do_not_fit_or_are_not_finite_are_refused(tmp_path):
    model = theirs()
    model.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    weights = load_file(path)
    name = "backbone.layers.0.mixer.D"
    for wrong, reason in ((weights[name] * torch.inf, "not finite"), (torch.ones(3), "should be")):
        save_file({**weights, name: wrong}, path)
        with pytest.raises(ValueError, match=f"mixer.D .*{reason}"):
            load_pretrained(tmp_path)
    path.write_bytes(b"damaged")
    with pytest.raises(ValueError, match="holds no model that fits here"):
        load_pretrained(tmp_path)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        load_pretrained(tmp_path)


def test_a_model_with_a_replaced_part_is_refused(tmp_path):
    model = ours("mamba; norm=rms")
    model.norm_f = nn.RMSNorm(8, eps=1e-3)
    with pytest.raises(ValueError, match="parts that its spec does not tell of"):
        save_pretrained(model, tmp_path, "transformers")
