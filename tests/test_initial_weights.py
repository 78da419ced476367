"""First weights: Mamba's against the paper (Gu & Dao 2023, arXiv:2312.00752, section 3.6), the
gated delta rule's against flash-linear-attention's.
"""

import math

import pytest
import torch
from scipy.stats import kstest
from torch.nn import functional as F

from recall_arena.mixers import GatedDelta, Mamba, MambaMixer
from recall_arena.model import ModelSpec, SequenceModel


def fresh_mamba(width: int) -> MambaMixer:
    torch.manual_seed(0)
    return Mamba().build(width)


def mamba_in_a_model(width: int) -> MambaMixer:
    """The last of three layers, after everything that a model does to its parts."""
    torch.manual_seed(0)
    model = SequenceModel(ModelSpec(layers=("mamba", "attention", "mamba"), width=width))
    mixer = model.layers[2].mixer
    assert isinstance(mixer, MambaMixer)
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


@pytest.mark.parametrize("decay", ["head", "channel"])
def test_a_gated_delta_starts_with_rates_up_to_16_and_time_steps_as_mambas(decay):
    torch.manual_seed(0)
    mixer = GatedDelta(heads=2048, key_width=2, window=1, decay=decay).build(4)
    rates, steps = mixer.A_log.detach().exp(), F.softplus(mixer.dt_bias.double()).detach()
    assert rates.shape == (2048,)
    assert len(steps) == (4096 if decay == "channel" else 2048)
    assert kstest(rates.numpy() / 16, "uniform").pvalue > 0.01
    assert kstest(((steps.log() - math.log(1e-3)) / math.log(100)).numpy(), "uniform").pvalue > 0.01
    for weight in (mixer.A_log, mixer.dt_bias):
        assert weight._no_weight_decay
    assert torch.equal(mixer.o_norm.weight, torch.ones(4))
