"""What every mixer promises.  A new mixer is tested by being listed in MIXERS."""

import itertools

import pytest
import torch
from torch import Tensor

from recall_arena.battery import PROPERTIES, Property, name_of
from recall_arena.battery.causality import influence
from recall_arena.battery.precision import float32_agrees_with_float64
from recall_arena.battery.probe import gradients, normal
from recall_arena.battery.states import (
    no_more_is_remembered_than_state_size_says,
    numbers_remembered,
)
from recall_arena.kernels import native
from recall_arena.mixers import MIXERS, Attention, GatedDelta, GatedDeltaMixer, Mamba, Mixer
from recall_arena.mixers.text import read_mixer
from recall_arena.zoo import recurrent

APART = (float32_agrees_with_float64, no_more_is_remembered_than_state_size_says)
BATTERY = [holds for holds in PROPERTIES if holds not in APART]  # those have tests of their own

VARIANTS = (  # between them, every option
    "mamba(state=4, expand=3, window=1, rank=2, bias=True, A_log_offset=0.5, dt_offset=0.5)",
    "mamba(window=3, conv_bias=False)",
    "attention(heads=2, positions=xpos, bias=True, q_window=3, k_window=2, v_window=4)",
    "attention-rope(base=100.0, k_window=4)",
    "gated-delta(heads=2, key_width=3, negative_eigenvalues=True, window=2)",
)
CASES = [*itertools.product(MIXERS, [8, 64]), *itertools.product(VARIANTS, [8])]


@pytest.fixture(params=CASES, ids=lambda p: f"{p[0]}, width {p[1]}")
def mixer_and_width(request: pytest.FixtureRequest) -> tuple[Mixer, int]:
    name, width = request.param
    torch.manual_seed(0)
    return read_mixer(name).build(width).double(), width  # float64: exact zeros mean exact zeros


@pytest.fixture
def mixer(mixer_and_width) -> Mixer:
    return mixer_and_width[0]


@pytest.fixture
def width(mixer_and_width) -> int:
    return mixer_and_width[1]


@pytest.mark.one_in(2)  # so each property is asked of each mixer at one of its two widths
@pytest.mark.parametrize("holds", BATTERY, ids=name_of)
def test_every_mixer_passes_the_battery(holds: Property, mixer: Mixer, width: int) -> None:
    assert holds(mixer, width)


@pytest.mark.parametrize("position", [0, 5, 11])
def test_output_depends_on_all_of_the_past(mixer, width, position):
    assert (influence(mixer, width, position)[: position + 1] > 0).all()


def test_every_parameter_has_a_gradient_that_is_not_zero(mixer, width):
    x = normal(2, 192, width).requires_grad_()
    for name, gradient in gradients(mixer(x), mixer, x).items():
        assert (gradient != 0).any(), name


def test_float32_agrees_with_float64(mixer, width):
    """Above all where float32 runs on compiled kernels and float64 on their definitions.

    Gradients that nearly cancel are off by up to 1.7e-5 with the definitions too; and a
    normalised output near zero divides what was rounded: 5.2e-5 in the definition's A_log, whose
    one number sums over all.
    """
    gated_delta = 5e-5 if native.instruction_set() else 1e-4
    tolerance = gated_delta if isinstance(mixer, GatedDeltaMixer) else 2e-5
    assert float32_agrees_with_float64(mixer, width, tolerance)


# What a mixer remembers


@pytest.mark.parametrize("name", MIXERS)
def test_no_more_is_remembered_than_the_state_size_claims(name):
    """Of 40 tokens at width 2, which are 80 numbers: more than Mamba keeps."""
    torch.manual_seed(0)
    assert no_more_is_remembered_than_state_size_says(MIXERS[name].build(2).double(), 2)


@pytest.mark.parametrize(("state", "window"), [(3, 4), (3, 1), (1, 4), (4, 2)])
def test_mamba_remembers_exactly_its_state_however_long_the_context(state, window):
    """Without expansion each number of the state can be reached, so the claim is exact."""
    torch.manual_seed(0)
    mixer = Mamba(expand=1, state=state, window=window).build(2).double()
    for context in (8, 20):
        assert numbers_remembered(mixer, 2, context) == mixer.state_size(context)
        assert mixer.state_size(context) == 2 * (state + window - 1)


@pytest.mark.parametrize("decay", ["none", "head", "channel"])
def test_the_gated_delta_rule_remembers_exactly_its_state_however_long_the_context(decay):
    torch.manual_seed(0)
    mixer = GatedDelta(expand=1, window=1, decay=decay).build(2).double()
    for context in (8, 20):
        assert numbers_remembered(mixer, 2, context) == mixer.state_size(context) == 2 * 2


@pytest.mark.parametrize("decay", ["none", "head", "channel"])
def test_with_a_convolution_it_remembers_more_and_at_most_its_state(decay):
    """q, k and v are of two numbers of x each, so that its inputs are not independent."""
    torch.manual_seed(0)
    mixer = GatedDelta(expand=1, window=3, decay=decay).build(2).double()
    for context in (8, 20):
        assert mixer.state_size(context) == 2 * 2 + 2 * 6
        assert 2 * 2 < numbers_remembered(mixer, 2, context) <= mixer.state_size(context)


@pytest.mark.parametrize("name", VARIANTS)
def test_no_more_is_remembered_with_any_option(name):
    torch.manual_seed(0)
    width = 4 if "heads" in name else 2
    assert no_more_is_remembered_than_state_size_says(read_mixer(name).build(width).double(), width)


@pytest.mark.parametrize("options", [{}, {"heads": 2}, {"positions": "xpos", "bias": True}])
def test_attention_claims_the_keys_and_values_that_it_holds(options):
    """Twice the inputs, of which both are made: those that are told apart are half as many."""
    torch.manual_seed(0)
    mixer = Attention(**options).build(4).double()
    for context in (4, 8):
        assert mixer.state_size(context) == 2 * 4 * context
        assert numbers_remembered(mixer, 4, context) == 4 * context


@pytest.mark.parametrize("name", ["attention", "attention-rope"])
def test_what_attention_remembers_grows_with_the_context(name):
    torch.manual_seed(0)
    mixer = MIXERS[name].build(2).double()
    assert [numbers_remembered(mixer, 2, context) for context in (4, 8, 16)] == [8, 16, 32]


def test_the_state_of_mamba_is_constant_and_that_of_attention_linear():
    mamba, attention = Mamba().build(8), Attention(heads=2).build(8)
    assert {mamba.state_size(context) for context in (0, 1, 64, 10_000)} == {16 * (16 + 3)}
    assert [attention.state_size(context) for context in (0, 1, 64)] == [0, 16, 1024]


@pytest.mark.parametrize("name", MIXERS)
def test_recurrent_mixers_are_those_that_go_on_in_constant_memory(name):
    """The table of names needs no torch, so it is written by hand."""
    assert recurrent([name]) == MIXERS[name].build(8).continues


# What a mixer refuses


@pytest.mark.parametrize("heads", [3, 16])
def test_heads_that_do_not_divide_the_width_are_refused(heads):
    with pytest.raises(ValueError, match=f"heads must divide the width 8, got {heads}"):
        Attention(heads=heads).build(8)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"heads": 3}, "heads must divide the width 8, got 3"),
        ({"heads": 0, "key_width": 4}, "heads must be at least 1, got 0"),
        ({"key_width": 0}, "key_width must be at least 1"),
        ({"expand": 0}, "expand must be at least 1"),
        ({"window": 0}, "window must be at least 1"),
        ({"decay": "some"}, "decay: should be 'none', 'head' or 'channel', got 'some'"),
        ({"gate": "tanh"}, "gate: should be 'none', 'silu' or 'sigmoid', got 'tanh'"),
    ],
)
def test_a_gated_delta_refuses_what_it_is_not(options, named):
    with pytest.raises(ValueError, match=named):
        GatedDelta(**options).build(8)


@pytest.mark.parametrize(("width", "heads", "head_width"), [(7, 1, 7), (6, 2, 3), (8, 8, 1)])
def test_rope_refuses_heads_of_an_odd_width(width, heads, head_width):
    with pytest.raises(ValueError, match=f"head's width must be even, got {head_width}"):
        Attention(heads=heads, positions="rope").build(width)
    assert Attention(heads=heads).build(width).heads == heads


def test_a_mixer_must_say_what_it_remembers():
    class Forgetful(Mixer):
        def forward(self, x: Tensor, last: bool = False) -> Tensor:
            return x[:, -1:] if last else x

    with pytest.raises(TypeError, match="state_size"):
        Forgetful()
