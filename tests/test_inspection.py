"""From what `inspect` shows, each layer's output follows, by the equations of its paper."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recall_arena.inspection import inspect
from recall_arena.mixers import AttentionMixer, GatedDeltaMixer, MambaMixer
from recall_arena.model import SequenceModel, named
from recall_arena.seeds import generator

STACKS = (
    *("hybrid-b", "transformer-rope", "deltanet, kda", "gated-delta(heads=2, window=1)"),
    "mamba(state=4, window=1, bias=True), mamba(conv_bias=False); norm=rms; mlp=swiglu",
    "attention(heads=2, positions=xpos, q_window=3, v_window=2, bias=True); positions=sinusoidal",
    "attention-rope, gated-delta; positions=learned; mlp=gelu",
)
LENGTH = 11


def made(text: str) -> SequenceModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SequenceModel(named(text, width=8, longest_context=LENGTH)).double()


def tokens() -> Tensor:
    return torch.randint(16, (3, LENGTH), generator=generator("tokens"))


def mamba(mixer: MambaMixer, of: dict[str, Tensor]) -> Tensor:
    """Equations (2a) and (2b) of arXiv:2312.00752; the states are held to the recurrence."""
    decays = torch.exp(of["Delta"].unsqueeze(3) * of["A"])
    drives = (of["Delta"] * of["u"]).unsqueeze(3) * of["B"].unsqueeze(2)
    before = F.pad(of["states"], (0, 0, 0, 0, 1, 0))[:, :-1]
    torch.testing.assert_close(of["states"], decays * before + drives, rtol=0, atol=1e-12)
    y = (of["states"] @ of["C"].unsqueeze(3)).squeeze(3) + of["D"] * of["u"]
    return mixer.out_proj(y * of["gate"])


def gated_delta(mixer: GatedDeltaMixer, of: dict[str, Tensor]) -> Tensor:
    """S_t = (I - beta k k^T) diag(exp(g)) S_{t-1} + beta k v^T, equation (10) of 2412.06464."""
    k, beta = of["k"], of["beta"][..., None, None]
    before = F.pad(of["states"], (0, 0, 0, 0, 0, 0, 1, 0))[:, :-1]
    if "g" in of:
        g = of["g"] if of["g"].ndim == 4 else of["g"].unsqueeze(3)
        before = g.exp().unsqueeze(4) * before
    erase = torch.eye(k.shape[3], dtype=k.dtype) - beta * k.unsqueeze(4) * k.unsqueeze(3)
    after = erase @ before + beta * k.unsqueeze(4) * of["v"].unsqueeze(3)
    torch.testing.assert_close(of["states"], after, rtol=0, atol=1e-12)
    o = (of["q"].unsqueeze(3) @ of["states"]).squeeze(3)
    normed = (F.rms_norm(o, o.shape[3:], eps=1e-5) * mixer.o_norm.weight).flatten(2)
    return mixer.out_proj(normed * of["gate"] if "gate" in of else normed)


def attention(mixer: AttentionMixer, of: dict[str, Tensor]) -> Tensor:
    scores = of["q"] @ of["k"].transpose(2, 3) / of["k"].shape[3] ** 0.5
    future = torch.ones(LENGTH, LENGTH).triu(1).bool()
    weights = scores.masked_fill(future, float("-inf")).softmax(3)
    torch.testing.assert_close(of["weights"], weights, rtol=0, atol=1e-12)
    return mixer.out_proj((of["weights"] @ of["v"]).transpose(1, 2).flatten(2))


EQUATIONS = {MambaMixer: mamba, GatedDeltaMixer: gated_delta, AttentionMixer: attention}


@pytest.mark.parametrize("text", STACKS)
def test_the_output_of_each_layer_follows_from_what_is_shown(text):
    model = made(text)
    found = inspect(model, tokens())
    assert len(found) == len(model.layers)
    stream = model.embed(tokens())
    for block, of in zip(model.layers, found, strict=True):
        torch.testing.assert_close(of["input"], block.norm(stream), rtol=0, atol=1e-12)
        output = EQUATIONS[type(block.mixer)](block.mixer, of)
        torch.testing.assert_close(output, of["output"], rtol=0, atol=1e-12)
        stream = of["stream"]
    torch.testing.assert_close(model.lm_head(model.norm_f(stream[:, -1])), model(tokens()))


def test_attention_is_shown_as_shares_of_the_past():
    weights = inspect(made("transformer-nope"), tokens())[0]["weights"]
    assert weights.shape == (3, 1, LENGTH, LENGTH)
    torch.testing.assert_close(weights.sum(3), torch.ones_like(weights[..., 0]))
    assert (weights.triu(1) == 0).all()


def test_the_last_state_is_that_from_which_the_model_goes_on():
    model = made("mamba, gated-delta")
    _, state = model.continued(tokens())
    for shown, kept in zip(inspect(model, tokens()), state.layers, strict=True):
        torch.testing.assert_close(shown["states"][:, -1], kept[-1], rtol=0, atol=1e-12)


def test_gradients_flow_to_what_is_shown():
    model = made("mamba, attention")
    found = inspect(model, tokens())
    wanted = [found[0]["Delta"], found[0]["states"], found[1]["input"]]
    gradients = torch.autograd.grad(found[1]["weights"][..., -1, 0].sum(), wanted[2:])
    assert all((gradient != 0).any() for gradient in gradients)
    assert all(tensor.requires_grad for tensor in wanted)


class Negated(AttentionMixer):
    def forward(self, x: Tensor, last: bool = False) -> Tensor:
        return -super().forward(x, last=last)


def test_of_what_is_not_known_only_the_ends_are_shown():
    """A subclass computes something else by the same weights; it does not show its base's."""
    model = made("attention, mamba, mamba")
    model.layers[0].mixer.__class__ = Negated
    model.layers[1].mixer = nn.Linear(8, 8).double()
    model.layers[2] = nn.Sequential(model.layers[2], nn.Tanh())
    found = inspect(model, tokens())
    assert [set(of) for of in found] == [{"input", "output", "stream"}] * 3
    logits = model.lm_head(model.norm_f(found[-1]["stream"][:, -1]))
    torch.testing.assert_close(logits, model(tokens()))
