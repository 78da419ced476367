"""What stands in the place of what was built: a `forward` given later, an option, a layout, a hook.

Each way to compute a model, the compiled one, piece by piece and for a look inside, gives what the
model itself gives then, or refuses.
"""

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recall_arena.compiled import AT_ONCE, Compiled
from recall_arena.inspection import inspect
from recall_arena.layouts import save_pretrained
from recall_arena.mixers import MIXERS, Mamba, MambaMixer, Mixer
from recall_arena.model import Block, ModelSpec, SequenceModel
from recall_arena.seeds import generator
from recall_arena.tasks import AssociativeRecall
from recall_arena.training import Schedule, Training

WIDTH = 8
STACK = "mamba, gated-delta, attention-rope"


def made(text: str = STACK, **options: object) -> SequenceModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SequenceModel(ModelSpec(tuple(text.split(", ")), width=WIDTH, **options))


def some_tokens(batch: int = 4, length: int = 9) -> Tensor:
    return torch.randint(16, (batch, length), generator=generator("stand-ins", batch, length))


def assert_follows(model: SequenceModel, compiled: Compiled) -> None:
    """The compiled form gives the model's logits, loss and gradients."""
    tokens, answers = some_tokens(), torch.arange(4)
    logits = model(tokens)
    torch.testing.assert_close(compiled.logits(tokens), logits, rtol=0, atol=1e-6)
    weights = [w for w in model.parameters() if w.requires_grad]
    loss = F.cross_entropy(model.train()(tokens), answers)
    wanted = torch.autograd.grad(loss, weights)
    torch.testing.assert_close(compiled.loss_and_gradient(tokens, answers), loss, rtol=0, atol=1e-6)
    for weight, gradient in zip(weights, wanted, strict=True):
        torch.testing.assert_close(weight.grad, gradient, rtol=1e-4, atol=1e-6)


# A forward of another


def halve(part: nn.Module) -> None:
    """As libraries do that wrap a module's method and not the module."""
    forward = part.forward
    part.forward = lambda *args, **kwargs: 0.5 * forward(*args, **kwargs)


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize(
    "part", ["", "embedding", "layers.0", "layers.0.norm", "layers.1.mixer", "norm_f", "lm_head"]
)
def test_a_forward_of_the_instance_is_called(part, before):
    model, tokens = made(), some_tokens()
    compiled, stock = Compiled(model), made()(tokens)
    if not before:
        compiled.logits(tokens)
        compiled.loss_and_gradient(tokens, torch.arange(4))
    halve(model.get_submodule(part))
    assert (model(tokens) - stock).abs().max() > 1e-3
    assert_follows(model, compiled)


@pytest.mark.parametrize("kind", [SequenceModel, Block, MambaMixer, nn.Linear, nn.LayerNorm])
def test_a_forward_that_a_class_is_given_later_is_called(kind, monkeypatch):
    model, tokens = made("mamba, mamba"), some_tokens()
    compiled = Compiled(model)
    compiled.logits(tokens)
    stock, forward = model(tokens), kind.forward
    monkeypatch.setattr(kind, "forward", lambda *args, **kwargs: 0.5 * forward(*args, **kwargs))
    assert (model(tokens) - stock).abs().max() > 1e-3
    assert_follows(model, compiled)
    assert_follows(model, Compiled(model))


class Loud:
    def forward(self, x: Tensor, last: bool = False) -> Tensor:
        return 2 * super().forward(x, last)


class LoudMamba(Loud, MambaMixer):
    """By a mixin, so that the class has no forward itself."""


class LateMamba(MambaMixer):
    """Is given its forward later."""


LateMamba.forward = lambda self, x, last=False: 2 * MambaMixer.forward(self, x, last)


@pytest.mark.parametrize("kind", [LoudMamba, LateMamba])
def test_a_mixer_with_another_forward_goes_on_by_it(kind):
    model = made("mamba, mamba")
    model.layers[0].mixer = kind(WIDTH, Mamba())
    tokens = some_tokens(1, AT_ONCE + 8)
    short, compiled = tokens[:, :9], Compiled(model)
    torch.testing.assert_close(model.continued(short)[0], model(short), rtol=0, atol=1e-6)
    torch.testing.assert_close(compiled.logits(tokens), model(tokens), rtol=0, atol=1e-5)
    assert set(inspect(model, short)[0]) == {"input", "output", "stream"}


def test_a_model_with_another_forward_does_not_go_on_by_the_usual_one():
    class Halved(SequenceModel):
        def forward(self, tokens: Tensor, where: Tensor | None = None) -> Tensor:
            return 0.5 * super().forward(tokens, where)

    with pytest.raises(NotImplementedError, match="Halved has a forward of its own"):
        Halved(made().spec).continued(some_tokens())


# Options and parts


def rescale(model: SequenceModel) -> None:
    mixer = model.layers[1].mixer
    mixer.sizes = replace(mixer.sizes, beta_scale=2.0)


def bound(model: SequenceModel) -> None:
    model.embedding.max_norm = 0.1


def pad(model: SequenceModel) -> None:
    model.embedding.padding_idx = int(some_tokens()[0, 0])


@pytest.mark.parametrize("change", [rescale, bound, pad])
def test_an_option_that_is_changed_between_calls_counts(change: Callable[[SequenceModel], None]):
    model = made(embedding="trained")
    compiled = Compiled(model)
    assert_follows(model, compiled)
    change(model)
    assert_follows(model, compiled)


def delta_with(norm: nn.Module) -> Mixer:
    mixer = made("gated-delta").layers[0].mixer
    mixer.o_norm = norm
    return mixer


@pytest.mark.parametrize(
    "norm", [nn.RMSNorm(16, eps=0.1), nn.LayerNorm(16), nn.Identity()], ids=repr
)
def test_the_output_norm_of_the_gated_delta_rule_may_be_replaced(norm):
    mixer = delta_with(norm)
    x = torch.randn(2, 5, WIDTH, generator=generator("o_norm"))
    seen: list[Tensor] = []
    with norm.register_forward_hook(lambda _, given, out: seen.append(given[0])):
        mixer(x)
    assert len(seen) == 1
    z = mixer.in_proj(x)[..., -16:]
    wanted = mixer.out_proj(norm(seen[0]).flatten(2) * F.silu(z))
    for found in (mixer(x), mixer.continued(x, None)[0]):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_a_hook_on_the_output_norm_of_the_gated_delta_rule_counts():
    mixer = made("gated-delta").layers[0].mixer
    mixer.o_norm.register_forward_hook(lambda module, given, out: torch.zeros_like(out))
    assert not mixer(torch.ones(1, 3, WIDTH)).any()


class Wrapped(nn.Module):
    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.inside = inside

    def forward(self, x: Tensor) -> Tensor:
        return 2 * self.inside(x)


@pytest.mark.parametrize(
    ("text", "name"), [("mamba", "conv1d"), ("gated-delta", "conv1d"), ("cat", "q_conv1d")]
)
def test_a_wrapped_convolution_is_called_and_how_far_it_sees_is_not_guessed(text, name):
    model = made("attention(q_window=3)" if text == "cat" else text)
    mixer, tokens = model.layers[0].mixer, some_tokens()
    stock = model(tokens)
    setattr(mixer, name, Wrapped(getattr(mixer, name)))
    assert (model(tokens) - stock).abs().max() > 1e-4
    assert_follows(model, Compiled(model))
    for ask in (lambda: model.continued(tokens), lambda: model.state_size(9)):
        with pytest.raises(NotImplementedError, match="positions a Wrapped sees is not known"):
            ask()
    long = some_tokens(1, AT_ONCE + 8)
    torch.testing.assert_close(Compiled(model).logits(long), model(long), rtol=0, atol=1e-5)


def test_a_wider_convolution_in_the_place_of_attentions_goes_on_as_far_as_it_sees():
    model = made("attention(q_window=3)")
    mixer = model.layers[0].mixer
    mixer.q_conv1d = type(mixer.q_conv1d)(WIDTH, 7)
    tokens = some_tokens(2, 20)
    _, state = model.continued(tokens[:, :12])
    torch.testing.assert_close(
        model.continued(tokens[:, 12:], state)[0], model(tokens), rtol=0, atol=1e-5
    )


# Layouts of tensors


@pytest.mark.filterwarnings("ignore:grad and param do not obey")
def test_a_weight_that_is_transposed_at_its_address_is_read_as_it_is_now():
    model = made(STACK.replace("mamba", "attention"))
    compiled = Compiled(model)
    assert_follows(model, compiled)
    weight = model.layers[0].mixer.out_proj.weight
    weight.data = weight.data.T
    assert_follows(model, compiled)


def test_a_vocabulary_that_is_cut_at_its_address_has_its_own_loss():
    model, tokens, answers = made(), some_tokens() % 8, torch.arange(4)
    compiled = Compiled(model)
    compiled.loss_and_gradient(tokens, answers)
    for weight in (model.embedding.weight, model.lm_head.weight):
        weight.data, weight.grad = weight.data[:8], None
    loss = compiled.loss_and_gradient(tokens, answers)
    torch.testing.assert_close(loss, F.cross_entropy(model(tokens), answers), rtol=0, atol=1e-6)
    assert model.lm_head.weight.grad.shape == (8, WIDTH)


@pytest.mark.parametrize("text", MIXERS)
def test_what_hooks_give_back_in_another_layout_has_the_same_gradients(text):
    mixer = MIXERS[text].build(WIDTH)
    x = torch.randn(2, 6, WIDTH, generator=generator("hooks"))

    def gradients(pack: Callable[[Tensor], Tensor], unpack: Callable[[Tensor], Tensor]) -> list:
        with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
            loss = mixer(x).square().sum()
        return list(torch.autograd.grad(loss, mixer.parameters(), materialize_grads=True))

    def transposed(t: Tensor) -> Tensor:
        return t.mT if t.ndim > 1 else t

    wanted = gradients(lambda t: t, lambda t: t)
    found = gradients(lambda t: transposed(t).contiguous(), transposed)
    for each, exact in zip(found, wanted, strict=True):
        assert (each - exact).norm() <= 1e-4 * max(exact.norm(), 1e-3)


def test_an_answer_of_minus_100_is_refused_where_nothing_is_compiled():
    model = made()
    model.layers[0].register_forward_hook(lambda *_: None)
    with pytest.raises(IndexError, match="-100"):
        Compiled(model).loss_and_gradient(some_tokens(), torch.tensor([0, 1, 2, -100]))


# A look inside


class Doubled(Block):
    def forward(self, x: Tensor, last: bool = False) -> Tensor:
        return 2 * super().forward(x, last)


@pytest.mark.parametrize("way", ["subclass", "hook on the block", "hook on the mixer"])
def test_a_look_inside_is_of_what_the_model_computes(way):
    model, tokens = made(), some_tokens()
    if way == "subclass":
        model.layers[0].__class__ = Doubled
    else:
        part = model.layers[0] if way.endswith("block") else model.layers[0].mixer
        part.register_forward_hook(lambda module, given, out: 2 * out)
    seen = inspect(model, tokens)
    logits = model.lm_head(model.norm_f(seen[-1]["stream"][:, -1]))
    torch.testing.assert_close(logits, model(tokens), rtol=0, atol=1e-6)
    assert not model.layers[0].mixer._forward_hooks or way == "hook on the mixer"


# Types, marks, files


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sinusoids_in_half_precision_are_the_exact_ones_rounded(dtype):
    model = made("mamba", positions="sinusoidal").to(dtype)
    tokens = torch.zeros(1, 600, dtype=torch.int64)
    found = model.embed(tokens) - model.embedding(tokens)
    exact = copy.deepcopy(model).double()
    wanted = exact.embed(tokens) - exact.embedding(tokens)
    assert (found.double() - wanted).abs().max() < 2 * torch.finfo(dtype).eps
    assert (model.embed(tokens)[0, 256] != model.embed(tokens)[0, 257]).any()


def marked(model: nn.Module) -> set[str]:
    marks = ("_no_weight_decay", "_no_reinit")
    return {f"{name} {m}" for name, w in model.named_parameters() for m in marks if hasattr(w, m)}


def test_copies_keep_the_marks_of_weights():
    model = made("mamba, gated-delta", positions="learned", max_length=16, embedding="trained")
    loaded = made("mamba, gated-delta", positions="learned", max_length=16, embedding="trained")
    loaded.load_state_dict({k: v.clone() for k, v in model.state_dict().items()}, assign=True)
    assert len(marked(model)) == 9
    assert marked(model) == marked(copy.deepcopy(model)) == marked(loaded)


def test_a_copy_is_decayed_as_its_original_is():
    weights, task = [], AssociativeRecall()
    for model in (made("mamba"), copy.deepcopy(made("mamba"))):
        compiled, schedule = Compiled(model), Schedule(rate=1e-2, steps=3, weight_decay=0.5)
        list(Training(model.parameters(), compiled.loss_and_gradient, task, schedule, seed=0))
        weights.append(model.layers[0].mixer.A_log.clone())
    assert torch.equal(*weights)


def test_models_are_built_in_the_default_type():
    torch.set_default_dtype(torch.float64)
    try:
        assert made()(some_tokens()).dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def change_heads(model: SequenceModel) -> None:
    model.layers[0].mixer.heads = 2


def hook(model: SequenceModel) -> None:
    model.norm_f.register_forward_hook(lambda module, given, out: 2 * out)


@pytest.mark.parametrize("change", [change_heads, hook])
def test_what_a_layout_does_not_tell_of_is_not_saved(change, tmp_path):
    model = made("attention")
    change(model)
    with pytest.raises(ValueError, match="parts that its spec does not tell of"):
        save_pretrained(model, tmp_path, "mamba-ssm")
    assert not list(tmp_path.iterdir())
