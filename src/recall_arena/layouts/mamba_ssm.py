"""mamba-ssm's MambaLMHeadModel (2.2 and later): Mamba layers, and attention where it is listed."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from recall_arena.config import frozen, read
from recall_arena.layouts.layout import Layout, read_known, shared, the_one
from recall_arena.mixers import Attention, Mamba
from recall_arena.mixers.text import write_mixer
from recall_arena.spec import MLPKind, ModelSpec

MULTIPLE = 128  # of GatedMLP's hidden numbers; others are rounded up

START = ("dt_min", "dt_max", "dt_init", "dt_scale", "dt_init_floor", "use_fast_path")
"""Options of its Mamba that do not change what a trained one computes."""


@frozen
class _Config:
    """mamba-ssm's MambaConfig without ssm_cfg, attn_cfg and fused_add_norm.

    residual_in_fp32 changes nothing where all is float32.
    """

    d_model: int
    n_layer: int
    vocab_size: int
    d_intermediate: int = 0
    attn_layer_idx: tuple[int, ...] = ()
    rms_norm: bool = True
    pad_vocab_size_multiple: int = 8
    tie_embeddings: bool = True


@frozen
class _Mamba:
    """Options of its Mamba, as they stand in ssm_cfg."""

    layer: str = "Mamba1"
    d_state: int = 16
    d_conv: int = 4
    expand: int = 2
    dt_rank: int | str = "auto"
    conv_bias: bool = True
    bias: bool = False


@frozen
class _Attention:
    """Options of its MHA, as they stand in attn_cfg."""

    num_heads: int
    causal: bool = False
    qkv_proj_bias: bool = True
    out_proj_bias: bool = True
    rotary_emb_dim: int = 0
    rotary_emb_base: float = 10_000.0
    rotary_emb_interleaved: bool = False
    num_heads_kv: int | None = None
    head_dim: int | None = None
    mlp_dim: int = 0
    d_conv: int = 0
    softmax_scale: float | None = None


def _read(config: dict[str, Any]) -> tuple[ModelSpec, bool]:
    theirs = read_known(_Config, config)
    width, attends = theirs.d_model, theirs.attn_layer_idx
    mamba = shared(_mamba(config.get("ssm_cfg") or {}), width)
    attention = _attention(config.get("attn_cfg") or {}, width) if attends else None
    layers = (attention if i in attends and attention else mamba for i in range(theirs.n_layer))
    multiple = theirs.pad_vocab_size_multiple
    vocabulary = -(-theirs.vocab_size // multiple) * multiple
    hidden = -(-theirs.d_intermediate // MULTIPLE) * MULTIPLE
    if hidden % width:
        raise ValueError(f"an MLP of {hidden} hidden numbers: it must be a multiple of {width}")
    mlp: MLPKind = "swiglu" if hidden else "none"
    spec = ModelSpec(
        tuple(layers),
        *(vocabulary, width),
        norm="rms" if theirs.rms_norm else "layer",
        mlp=mlp,
        mlp_expand=hidden // width or 4,
        embedding="trained",
    )
    return spec, theirs.tie_embeddings


def _mamba(given: Mapping[str, Any]) -> Mamba:
    theirs = read(_Mamba, {name: value for name, value in given.items() if name not in START})
    if theirs.layer != "Mamba1":
        raise ValueError(f"ssm_cfg: layer must be 'Mamba1', got {theirs.layer!r}")
    rank = theirs.dt_rank if isinstance(theirs.dt_rank, int) else None
    sizes = (theirs.d_state, theirs.expand, theirs.d_conv, rank)
    return Mamba(*sizes, bias=theirs.bias, conv_bias=theirs.conv_bias)


def _attention(given: Mapping[str, Any], width: int) -> Attention:
    theirs = read(_Attention, dict(given))
    ours = Attention(
        theirs.num_heads,
        "rope" if theirs.rotary_emb_dim else "none",
        *(theirs.rotary_emb_base, theirs.out_proj_bias),
    )
    expected = read(_Attention, _written_attention(ours, width))
    alike = {"num_heads_kv": theirs.num_heads, "head_dim": width // theirs.num_heads}
    for field in fields(_Attention):
        value, wanted = getattr(theirs, field.name), getattr(expected, field.name)
        if value not in (wanted, alike.get(field.name, wanted)):
            raise ValueError(f"attn_cfg: {field.name} must be {wanted}, got {value}")
    return ours


def _written_attention(ours: Attention, width: int) -> dict[str, Any]:
    rope = ours.positions == "rope"
    return {
        "num_heads": ours.heads,
        "causal": True,
        "qkv_proj_bias": ours.bias,
        "out_proj_bias": ours.bias,
        "rotary_emb_dim": width // ours.heads if rope else 0,
        "rotary_emb_base": ours.base,
    }


def _check(spec: ModelSpec) -> None:
    """Raises ValueError for what a MambaConfig cannot say."""
    if spec.positions != "none":
        raise ValueError(f"positions={spec.positions}: mamba-ssm adds none to the embedding")
    if spec.mlp == "gelu" or (spec.mlp == "swiglu" and spec.mlp_expand * spec.width % MULTIPLE):
        raise ValueError(
            f"mlp={spec.mlp} of {spec.mlp_expand * spec.width} hidden numbers: mamba-ssm has "
            f"swiglu, and rounds them up to a multiple of {MULTIPLE}"
        )
    for i, each in enumerate(spec.mixers):
        if not isinstance(each, Mamba | Attention):
            raise ValueError(f"layer {i} is {write_mixer(each)}: mamba-ssm has Mamba and attention")


def _write(spec: ModelSpec) -> dict[str, Any]:
    _check(spec)
    attends = [i for i, each in enumerate(spec.mixers) if isinstance(each, Attention)]
    mambas = [shared(each, spec.width) for each in spec.mixers if isinstance(each, Mamba)]
    attentions = [_plain(each) for each in spec.mixers if isinstance(each, Attention)]
    attn_cfg = {}
    if attends:
        attn_cfg = _written_attention(the_one(attentions, "mamba-ssm"), spec.width)
    return {
        "d_model": spec.width,
        "d_intermediate": spec.mlp_expand * spec.width if spec.mlp == "swiglu" else 0,
        "n_layer": len(spec.layers),
        "vocab_size": spec.vocabulary,
        "ssm_cfg": _written_mamba(the_one(mambas, "mamba-ssm")) if mambas else {},
        "attn_layer_idx": attends,
        "attn_cfg": attn_cfg,
        "rms_norm": spec.norm == "rms",
        "residual_in_fp32": True,
        "fused_add_norm": True,
        "pad_vocab_size_multiple": 1,
        "tie_embeddings": False,
    }


def _written_mamba(ours: Mamba) -> dict[str, Any]:
    return {
        "layer": "Mamba1",
        "d_state": ours.state,
        "d_conv": ours.window,
        "expand": ours.expand,
        "dt_rank": ours.rank or "auto",
        "conv_bias": ours.conv_bias,
        "bias": ours.bias,
    }


def _plain(attention: Attention) -> Attention:
    """Raises ValueError for positions or convolutions that mamba-ssm's MHA does not have."""
    if attention.positions == "xpos":
        raise ValueError("positions=xpos: mamba-ssm's attention has rope or none")
    if replace(attention, q_window=1, k_window=1, v_window=1) != attention:
        raise ValueError(
            f"{write_mixer(attention)}: mamba-ssm convolves queries, keys and values by one filter "
            "with biases, or none of them"
        )
    return attention


MAMBA_SSM = Layout("pytorch_model.bin", "backbone.embedding.weight", _read, _write)
