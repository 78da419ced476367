"""Mixers and models as text: what can be said has one spelling, and is read back."""

import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recall_arena.config import as_json, read
from recall_arena.mixers import MIXERS, Attention, GatedDelta, Mamba, MixerOptions
from recall_arena.mixers.text import read_mixer, split_layers, write_mixer
from recall_arena.model import ModelSpec, SequenceModel, named
from recall_arena.zoo import ZOO, name_of

small, flags = st.integers(1, 20), st.booleans()
attentions = st.builds(
    Attention,
    heads=st.sampled_from([1, 2, 4]),
    positions=st.sampled_from(["none", "rope", "xpos"]),
    base=st.sampled_from([10_000.0, 100.0, 2.5]),
    bias=flags,
    q_window=small,
    k_window=small,
    v_window=small,
)
mambas = st.builds(
    Mamba,
    state=small,
    expand=small,
    window=small,
    rank=st.none() | small,
    bias=flags,
    conv_bias=flags,
    A_log_offset=st.floats(-9, 9),
    dt_offset=st.floats(-9, 9),
)
deltas = st.builds(
    GatedDelta,
    heads=st.sampled_from([1, 2, 4]),
    key_width=st.none() | small,
    expand=small,
    window=small,
    decay=st.sampled_from(["none", "head", "channel"]),
    negative_eigenvalues=flags,
    gate=st.sampled_from(["none", "silu", "sigmoid"]),
)
mixers = attentions | mambas | deltas
settings = st.fixed_dictionaries(
    {},
    optional={
        "positions": st.sampled_from(["none", "learned", "sinusoidal"]),
        "norm": st.sampled_from(["layer", "rms"]),
        "mlp": st.sampled_from(["none", "gelu", "swiglu"]),
        "mlp_expand": small,
        "embedding": st.sampled_from(["unit", "trained"]),
    },
)


@given(mixers)
def test_every_mixer_is_read_back_from_its_text(options: MixerOptions) -> None:
    assert read_mixer(write_mixer(options)) == options
    assert split_layers(write_mixer(options)) == [write_mixer(options)]


@pytest.mark.parametrize("name", MIXERS)
def test_a_name_stands_for_itself(name: str) -> None:
    """What records hold of the usual mixers is their names, and stays so."""
    assert write_mixer(read_mixer(name)) == name
    assert read_mixer(name) == MIXERS[name]


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("mamba(state=16)", "mamba"),
        (" mamba ( window = 1,state=32 ) ", "mamba(state=32, window=1)"),
        ("attention(positions=rope)", "attention-rope"),
        ("attention(positions='rope', heads=2)", "attention-rope(heads=2)"),
        ("attention-rope(positions=none)", "attention"),
        ("attention(positions=xpos)", "attention(positions=xpos)"),
        ("mamba(dt_offset=1)", "mamba(dt_offset=1.0)"),
        ("gated-delta(decay=channel, gate=sigmoid, expand=1)", "kda"),
        ("mamba()", "mamba"),
    ],
)
def test_equal_mixers_have_one_spelling(given: str, written: str) -> None:
    assert write_mixer(read_mixer(given)) == written
    assert ModelSpec((given,)) == ModelSpec((read_mixer(given),)) == ModelSpec((written,))
    assert ModelSpec((given,)).layers == (written,)


@given(st.lists(mixers, min_size=1, max_size=3), settings)
def test_every_model_is_read_back_from_its_text_and_from_its_json(
    layers: list[MixerOptions], settings: dict[str, Any]
) -> None:
    if settings.get("mlp", "none") == "none":
        settings.pop("mlp_expand", None)
    reach = 193 if settings.get("positions") == "learned" else None
    spec = ModelSpec(tuple(layers), width=8, max_length=reach, **settings)
    assert named(name_of(as_json(spec)), width=8) == spec
    assert read(ModelSpec, as_json(spec)) == spec
    assert spec.mixers == tuple(layers)


@pytest.mark.parametrize("name", ZOO)
def test_named_models_are_called_by_their_names_and_can_be_varied(name: str) -> None:
    spec = named(name)
    assert name_of(as_json(spec)) == name
    assert named(name_of(as_json(dataclasses.replace(spec, norm="rms")))).norm == "rms"
    assert name_of(as_json(named(f"{name}; norm=rms; mlp=gelu"))) == f"{name}; norm=rms; mlp=gelu"


def test_only_what_differs_is_written_so_that_addresses_stay() -> None:
    plain = as_json(named("hybrid-a"))
    assert set(plain) == {"layers", "vocabulary", "width", "positions", "max_length"}
    assert as_json(named("hybrid-a; norm=rms")) == {**plain, "norm": "rms"}


@pytest.mark.parametrize(
    "text",
    [
        "mamba(state=4, expand=3, window=1, rank=2, bias=True)",
        "mamba(conv_bias=False), attention(heads=2, positions=xpos, q_window=3, v_window=2)",
        "attention-rope(bias=True, base=50.0), kda(heads=2); norm=rms; mlp=swiglu",
        "deltanet, attention; positions=sinusoidal; mlp=gelu; mlp_expand=2; embedding=trained",
    ],
)
def test_a_model_of_any_options_runs_and_every_trained_weight_gets_a_gradient(text: str) -> None:
    torch.manual_seed(0)
    model = SequenceModel(named(text, width=8))
    tokens = torch.randint(16, (3, 9))
    model(tokens).square().sum().backward()
    for name, weight in model.named_parameters():
        assert not weight.requires_grad or (weight.grad is not None and weight.grad.any()), name
    assert model.embedding.weight.requires_grad == ("trained" in text)
