"""What every mixer promises.  A new mixer is tested by being listed in MIXERS."""

import copy
import itertools
from functools import partial

import pytest
import torch
from torch import Tensor

from recall_arena.mixers import MIXERS, Attention, GatedDelta, GatedDeltaMixer, Mamba, Mixer
from recall_arena.mixers.text import read_mixer
from recall_arena.seeds import generator

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


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=generator(*shape), dtype=torch.double)


def gradients(out: Tensor, mixer: Mixer, x: Tensor) -> dict[str, Tensor]:
    """The gradients of x and of each parameter from one fixed gradient of the output."""
    wanted = {"x": x, **dict(mixer.named_parameters())}
    arriving = normal(*out.shape).to(out.dtype)
    return dict(zip(wanted, torch.autograd.grad(out, list(wanted.values()), arriving), strict=True))


@pytest.mark.parametrize("position", [0, 5, 11])
def test_output_depends_on_all_of_the_past_and_none_of_the_future(mixer, width, position):
    x = normal(1, 12, width).requires_grad_()
    (influence,) = torch.autograd.grad(mixer(x)[0, position].sum(), x)
    influence = influence[0].abs().sum(dim=-1)

    assert (influence[: position + 1] > 0).all()
    assert (influence[position + 1 :] == 0).all()


@pytest.mark.parametrize("length", [1, 2, 63, 192])
def test_no_length_is_built_in(mixer, width, length):
    x = normal(2, length, width)
    assert mixer(x).shape == x.shape
    assert mixer(x).isfinite().all()


def test_a_longer_sequence_begins_like_a_shorter_one(mixer, width):
    x = normal(2, 63, width)
    torch.testing.assert_close(mixer(x)[:, :17], mixer(x[:, :17]), rtol=1e-12, atol=1e-12)


def test_sequences_in_a_batch_do_not_mix(mixer, width):
    x = normal(3, 12, width).requires_grad_()
    (influence,) = torch.autograd.grad(mixer(x)[1].sum(), x)
    assert (influence[[0, 2]] == 0).all()
    torch.testing.assert_close(mixer(x)[1:2], mixer(x[1:2]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_same_input_gives_bit_identical_outputs_and_gradients(mixer, width, dtype):
    mixer, x = mixer.to(dtype), normal(3, 17, width).to(dtype).requires_grad_()
    for read in (mixer, partial(mixer, last=True)):
        first, again = read(x), read(x)
        assert torch.equal(first, again)
        again_gradients = gradients(again, mixer, x)
        for name, gradient in gradients(first, mixer, x).items():
            assert torch.equal(gradient, again_gradients[name]), name


def test_training_and_evaluation_compute_the_same(mixer, width):
    x = normal(2, 12, width)
    assert torch.equal(mixer.train()(x), mixer.eval()(x))


def test_every_parameter_has_a_finite_gradient_that_is_not_zero(mixer, width):
    x = normal(2, 192, width).requires_grad_()
    for name, gradient in gradients(mixer(x), mixer, x).items():
        assert gradient.isfinite().all(), name
        assert (gradient != 0).any(), name


@pytest.mark.parametrize("length", [1, 2, 17])
def test_last_is_the_last_position_of_forward(mixer, width, length):
    x = normal(2, length, width).requires_grad_()
    last, row = mixer(x, last=True), mixer(x)[:, -1:]
    torch.testing.assert_close(last, row, rtol=1e-12, atol=1e-12)

    expected = gradients(row, mixer, x)
    for name, gradient in gradients(last, mixer, x).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-10, atol=1e-12, msg=name)


@pytest.mark.parametrize("length", [1, 17, 192])
def test_float32_agrees_with_float64(mixer, width, length):
    """Above all where float32 runs on compiled kernels and float64 on their definitions."""
    single, x = copy.deepcopy(mixer).float(), normal(2, length, width).requires_grad_()
    rounded = x.detach().float().requires_grad_()
    # Gradients that nearly cancel are off by up to 1.7e-5 with the definitions too; and a
    # normalised output near zero divides what was rounded.
    tolerance = 5e-5 if isinstance(mixer, GatedDeltaMixer) else 2e-5
    for last in (False, True):
        exact, approximate = partial(mixer, last=last), partial(single, last=last)
        expected = {"out": exact(x), **gradients(exact(x), mixer, x)}
        out = approximate(rounded)
        actual = {"out": out, **gradients(out, single, rounded)}
        for name, wanted in expected.items():
            error = (actual[name] - wanted).abs().max() / wanted.abs().max().clamp(min=1e-9)
            assert error <= tolerance, f"{name} is off by {error:.1e} of its largest number"


# What a mixer remembers


def numbers_remembered(mixer: Mixer, width: int, context: int) -> int:
    """The rank of the derivative of all later outputs by all earlier inputs.

    Whoever goes on from a state of n numbers passes the influence of the past through n
    numbers, so the rank is at most n.  As many outputs follow as inputs came before.
    """
    past, future = normal(2, context, width).split(1)

    def later(past: Tensor) -> Tensor:
        return mixer(torch.cat([past, future], dim=1))[0, context:]

    derivative = torch.autograd.functional.jacobian(later, 3 * past)
    singular = torch.linalg.svdvals(derivative.reshape(context * width, context * width))
    return int((singular > 1e-14 * singular[0]).sum())


@pytest.mark.parametrize("name", MIXERS)
@pytest.mark.parametrize("context", [1, 8, 40])  # 40 inputs are 80 numbers, more than Mamba keeps
def test_no_more_is_remembered_than_the_state_size_claims(name, context):
    torch.manual_seed(0)
    mixer = MIXERS[name].build(2).double()
    assert numbers_remembered(mixer, 2, context) <= mixer.state_size(context)


@pytest.mark.parametrize(("state", "window"), [(3, 4), (3, 1), (1, 4), (4, 2)])
def test_mamba_remembers_exactly_its_state_however_long_the_context(state, window):
    """Without expansion each number of the state can be reached, so the claim is exact."""
    torch.manual_seed(0)
    mixer = Mamba(expand=1, state=state, window=window).build(2).double()
    for context in (8, 20):
        assert numbers_remembered(mixer, 2, context) == mixer.state_size(context)
        assert mixer.state_size(context) == 2 * (state + window - 1)


@pytest.mark.parametrize("window", [1, 3])
@pytest.mark.parametrize("decay", ["none", "head", "channel"])
def test_the_gated_delta_rule_remembers_exactly_its_state_however_long_the_context(window, decay):
    torch.manual_seed(0)
    mixer = GatedDelta(expand=1, window=window, decay=decay).build(2).double()
    claimed = 2 * 2 + (window - 1) * 6  # its state, and the inputs that the convolution sees
    for context in (8, 20):
        assert mixer.state_size(context) == claimed
        assert numbers_remembered(mixer, 2, context) <= claimed


@pytest.mark.parametrize("name", ["attention", "attention-rope"])
def test_what_attention_remembers_grows_with_the_context(name):
    torch.manual_seed(0)
    mixer = MIXERS[name].build(2).double()
    assert [numbers_remembered(mixer, 2, context) for context in (4, 8, 16)] == [8, 16, 32]


def test_the_state_of_mamba_is_constant_and_that_of_attention_linear():
    mamba, attention = Mamba().build(8), Attention(heads=2).build(8)
    assert {mamba.state_size(context) for context in (0, 1, 64, 10_000)} == {16 * (16 + 3)}
    assert [attention.state_size(context) for context in (0, 1, 64)] == [0, 16, 1024]


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
