"""A sequence that goes on from a state gives what the whole gives, for any stack."""

import copy
from collections.abc import Iterator

import jaxtyping
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recall_arena.compiled import Compiled
from recall_arena.mixers import MambaMixer, Mixer
from recall_arena.mixers.text import read_mixer
from recall_arena.model import ModelState, SequenceModel, named
from recall_arena.seeds import generator

MIXERS = (  # between them, every option
    *("mamba", "attention", "gated-delta", "kda", "deltanet"),
    "mamba(state=4, expand=3, window=1, rank=2, bias=True)",
    "mamba(window=3, conv_bias=False)",
    "attention(heads=2, positions=xpos, bias=True, q_window=3, k_window=2, v_window=4)",
    "attention-rope(heads=2, base=100.0)",
    "attention-rope(k_window=4)",
    "gated-delta(heads=2, key_width=3, negative_eigenvalues=True, window=1)",
)
STACKS = (
    *MIXERS,
    "hybrid-b; norm=rms; mlp=swiglu",
    "attention, gated-delta; positions=learned; mlp=gelu",
    "attention-rope, mamba, kda; positions=sinusoidal; embedding=trained",
)
LENGTH = 23
PIECES = {"prefill, then tokens": [19, 1, 1, 1, 1], "tokens": [1] * LENGTH, "chunks": [5, 2, 9, 7]}


def made(text: str, dtype: torch.dtype = torch.double) -> SequenceModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SequenceModel(named(text, width=8, longest_context=LENGTH)).to(dtype)


def tokens(batch: int = 3) -> Tensor:
    return torch.randint(16, (batch, LENGTH), generator=generator("tokens"))


def everywhere(length: int, batch: int = 3) -> Tensor:
    return torch.arange(length).expand(batch, length)


def in_pieces(model: SequenceModel, pieces: list[int], x: Tensor) -> Iterator[Tensor]:
    state = None
    for piece in x.split(pieces, dim=1):
        logits, state = model.continued(piece, state, everywhere(piece.shape[1], len(x)))
        yield logits


@pytest.mark.parametrize("pieces", PIECES.values(), ids=PIECES)
@pytest.mark.parametrize("text", STACKS)
def test_pieces_give_the_logits_of_the_whole_at_every_position(text, pieces):
    model, x = made(text), tokens()
    expected = model(x, everywhere(LENGTH))
    found = torch.cat(list(in_pieces(model, pieces, x)), dim=1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("text", STACKS)
def test_in_float32_compiled_pieces_change_no_more_than_rounding(text):
    model, x = made(text, torch.float32), tokens()
    with torch.inference_mode():
        found = torch.cat(list(in_pieces(model, [16, 1, 1, 5], x)), dim=1)
    torch.testing.assert_close(found, model(x, everywhere(LENGTH)).detach(), rtol=0, atol=2e-5)


@pytest.mark.parametrize("text", STACKS)
def test_gradients_flow_through_the_state_as_through_the_whole(text):
    model, x = made(text), tokens()
    weights = [p for p in model.parameters() if p.requires_grad]
    expected = torch.autograd.grad(model(x).sum(), weights)
    found = torch.autograd.grad(list(in_pieces(model, [20, 3], x))[1][:, -1].sum(), weights)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("text", MIXERS)
def test_the_gradient_of_an_initial_state_is_right(text, dtype):
    """Against finite differences in float64, of which float32 is within rounding."""
    torch.manual_seed(0)
    mixer = read_mixer(text).build(4).double().requires_grad_(False)
    x = torch.randn(2, 5, 4, dtype=torch.double, generator=generator("x"))
    _, before = mixer.continued(x[:, :3], None)
    given = [tensor.requires_grad_() for tensor in before if tensor.numel()]

    def later(mixer: Mixer, x: Tensor, given: list[Tensor]) -> Tensor:
        there = iter(given)
        state = tuple(next(there) if tensor.numel() else tensor.to(x.dtype) for tensor in before)
        y, after = mixer.continued(x[:, 3:], state)
        return torch.cat([y.flatten(), *(tensor.flatten() for tensor in after)])

    if dtype == torch.double:
        assert torch.autograd.gradcheck(
            lambda *given: later(mixer, x, list(given)), given, fast_mode=True
        )
        return
    single, rounded = copy.deepcopy(mixer).float(), [t.detach().float() for t in given]
    expected = torch.autograd.grad(later(mixer, x, given).square().sum(), given)
    found = torch.autograd.grad(
        later(single, x.float(), [t.requires_grad_() for t in rounded]).square().sum(), rounded
    )
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("text", MIXERS)
def test_a_state_holds_as_many_numbers_as_state_size_says(text):
    model = made(text)
    _, state = model.continued(tokens(1))
    assert sum(t.numel() for layer in state.layers for t in layer) == model.state_size(LENGTH)
    assert state.length == LENGTH


def test_a_state_is_only_read_so_many_sequences_go_on_from_it():
    model, x = made("hybrid-b").requires_grad_(False), tokens()
    _, state = model.continued(x[:, :9])
    before = copy.deepcopy(state)
    first, _ = model.continued(x[:, 9:], state)
    model.continued(x.flip(1), state)
    again, _ = model.continued(x[:, 9:], state)
    assert torch.equal(first, again)
    for mine, kept in zip(state.layers, before.layers, strict=True):
        assert all(map(torch.equal, mine, kept))


# Layers that are not as they were built


class Averaged(Mixer):
    """A mixer that says nothing of states: the mean of all inputs so far."""

    def forward(self, x: Tensor, last: bool = False) -> Tensor:
        y = x.cumsum(1) / torch.arange(1, x.shape[1] + 1, dtype=x.dtype).unsqueeze(1)
        return y[:, -1:] if last else y

    def state_size(self, context: int) -> int:
        return context


class Doubled(MambaMixer):
    def forward(self, x: Tensor, last: bool = False) -> Tensor:
        return 2 * super().forward(x, last=last)


class Scaled(nn.Module):
    """A block that is not one of ours, around one that is."""

    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.inside = inside

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * self.inside(x)


def test_mixers_and_blocks_of_another_kind_are_given_all_their_inputs_again():
    model, x = made("mamba, attention, mamba"), tokens()
    model.layers[0].mixer.__class__ = Doubled
    model.layers[1].mixer = Averaged()
    model.layers[2] = Scaled(model.layers[2])
    found = torch.cat(list(in_pieces(model, [7, 1, 15], x)), dim=1)
    torch.testing.assert_close(found, model(x, everywhere(LENGTH)), rtol=0, atol=1e-12)
    assert not model.layers[0].mixer.continues


@pytest.mark.parametrize("text", ["mamba", "gated-delta", "attention-rope"])
def test_replaced_parts_are_used_and_hooks_on_parts_fire(text):
    model, x, seen = made(text), tokens(), []
    model.layers[0].mixer.in_proj = nn.Sequential(model.layers[0].mixer.in_proj, nn.Tanh())
    model.layers[0].mixer.out_proj.register_forward_hook(lambda *_: seen.append(1))
    expected = model(x, everywhere(LENGTH))
    seen.clear()
    found = torch.cat(list(in_pieces(model, [20, 3], x)), dim=1)
    assert len(seen) == 2
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("whole", ["layers.0", "layers.1.mixer"])
def test_a_hook_on_a_whole_layer_would_not_fire_and_is_refused(whole):
    model = made("mamba, attention")
    model.get_submodule(whole).register_forward_hook(lambda *_: None)
    with pytest.raises(NotImplementedError, match="a hook watches a"):
        model.continued(tokens())


# What is refused


def test_a_state_of_another_batch_or_stack_is_refused():
    model, x = made("hybrid-a"), tokens()
    _, state = model.continued(x)
    with pytest.raises(ValueError, match="a batch of 2, got 2 layers and 3"):
        model.continued(x[:2, :1], state)
    with pytest.raises(ValueError, match="of 2 layers and a batch of 3, got 1 layers"):
        model.continued(x[:, :1], ModelState(LENGTH, state.layers[:1]))


def test_learned_positions_end_where_they_end():
    model = made("attention; positions=learned")
    _, state = model.continued(tokens())
    _, state = model.continued(tokens()[:, :1], state)
    with pytest.raises(ValueError, match=f"reach {LENGTH + 1} tokens, got a sequence of"):
        model.continued(tokens()[:, :1], state)


@pytest.mark.parametrize("kind", [torch.bool, torch.float32, torch.int64])
def test_a_padding_mask_is_refused_with_the_way_to_do_without(kind, monkeypatch):
    model, mask = made("mamba"), torch.ones(3, LENGTH, dtype=kind)
    mask[0, 5:] = 0
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as outside of tests
    compiled = Compiled(made("mamba").float())
    calls = (model, lambda x, where: model.continued(x, None, where), compiled.logits)
    for call in (*calls, lambda x, where: compiled.loss_and_gradient(x, x, where)):
        with pytest.raises(ValueError, match="pad on the right and ask at"):
            call(tokens(), mask)


def test_positions_that_are_as_many_as_the_tokens_are_no_mask():
    model, x = made("mamba"), tokens()
    every = torch.arange(LENGTH).expand(3, -1)
    assert model(x, every).shape == (3, LENGTH, model.lm_head.out_features)
    short = torch.zeros(3, 2, dtype=torch.int64)
    torch.testing.assert_close(model(x[:, :2], short)[:, 0], model(x[:, :1]))


@pytest.mark.parametrize("text", STACKS)
def test_sequences_padded_on_the_right_are_answered_where_they_end(text):
    model, x, lengths = made(text), tokens(), [4, 23, 11]
    mask = torch.arange(LENGTH) < torch.tensor(lengths).unsqueeze(1)
    found = model(x * mask, where=mask.sum(1, keepdim=True) - 1)
    for row, length in enumerate(lengths):
        alone = model(x[row : row + 1, :length])
        torch.testing.assert_close(found[row], alone, rtol=0, atol=1e-12)


def test_attention_of_more_than_a_small_cache_goes_on_too():
    torch.manual_seed(0)
    mixer = read_mixer("attention-rope(heads=2)").build(8)
    x = torch.randn(1, 1100, 8, generator=generator("long"))
    with torch.inference_mode():
        y, state = mixer.continued(x[:, :1090], None)
        rest, _ = mixer.continued(x[:, 1090:], state)
        expected = mixer(x)
    torch.testing.assert_close(torch.cat([y, rest], dim=1), expected, rtol=0, atol=1e-5)
    assert F.mse_loss(rest, expected[:, 1090:]) < 1e-10
