"""Mixers and models as other people's code uses PyTorch modules: hooks, replaced parts, tracing,
transforms, derivatives of derivatives.  Each gives the number that the definition gives.
"""

import copy
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from recall_arena.compiled import Compiled
from recall_arena.mixers import MIXERS, AttentionMixer, Mamba, MambaMixer, Mixer
from recall_arena.model import Block, ModelSpec, SequenceModel, named
from recall_arena.seeds import generator
from recall_arena.zoo import ZOO

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.*is deprecated")  # torch's own calls

WIDTH = 8
each_mixer = pytest.mark.parametrize("name", MIXERS)
each_model = pytest.mark.parametrize("name", ZOO)


def mixer_named(name: str) -> Mixer:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MIXERS[name].build(WIDTH)


def model_named(name: str) -> SequenceModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SequenceModel(named(name, width=WIDTH))


def rows(*shape: int) -> Tensor:
    return torch.randn(shape, generator=generator("others", *shape))


def some_tokens(batch: int = 4, length: int = 9) -> Tensor:
    return torch.randint(16, (batch, length), generator=generator("others", batch, length))


def energy(mixer: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda x: mixer(x).square().sum()


# Derivatives of derivatives


@each_mixer
def test_the_hessian_is_that_of_the_definition(name):
    mixer, x = mixer_named(name), rows(1, 4, WIDTH)
    exact = torch.autograd.functional.hessian(energy(copy.deepcopy(mixer).double()), x.double())
    assert exact.norm() > 0.01
    for vectorize in (False, True):
        found = torch.autograd.functional.hessian(energy(mixer), x, vectorize=vectorize)
        assert (found - exact).norm() < 1e-5 * exact.norm()
    assert (torch.func.hessian(energy(mixer))(x) - exact).norm() < 1e-5 * exact.norm()


@each_model
def test_hessian_vector_products_of_models_are_those_of_the_definition(name):
    def product(model: SequenceModel) -> list[Tensor]:
        weights = [w for w in model.parameters() if w.requires_grad]
        loss = nn.functional.cross_entropy(model(some_tokens()), torch.arange(4))
        first = torch.autograd.grad(loss, weights, create_graph=True)
        return list(torch.autograd.grad(sum(g.square().sum() for g in first), weights))

    model = model_named(name)
    exact = product(copy.deepcopy(model).double())
    for found, wanted in zip(product(model), exact, strict=True):
        assert (found - wanted).norm() <= 1e-4 * max(wanted.norm(), 1e-3)


@each_mixer
def test_transforms_of_torch_func_work(name):
    mixer, x = mixer_named(name), rows(3, 6, WIDTH)
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(energy(mixer)(leaf), leaf)
    torch.testing.assert_close(torch.func.grad(energy(mixer))(x), expected)
    one_by_one = torch.func.vmap(lambda row: mixer(row.unsqueeze(0)).squeeze(0))(x)
    torch.testing.assert_close(one_by_one, mixer(x).detach())
    value, slope = torch.func.jvp(energy(mixer), (x,), (torch.ones_like(x),))
    torch.testing.assert_close(value, energy(mixer)(x).detach())
    torch.testing.assert_close(slope, expected.sum())


@each_mixer
def test_one_tensor_may_be_input_and_gradient_of_itself(name):
    mixer, x = mixer_named(name), rows(2, 5, WIDTH).requires_grad_()
    (first,) = torch.autograd.grad(mixer(x), x, grad_outputs=x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    double, y = copy.deepcopy(mixer).double(), x.detach().double().requires_grad_()
    (exact_first,) = torch.autograd.grad(double(y), y, grad_outputs=y, create_graph=True)
    (exact,) = torch.autograd.grad(exact_first.sum(), y)
    torch.testing.assert_close(second.double(), exact, rtol=1e-4, atol=1e-5)


# Hooks


def parts_of(model: SequenceModel) -> list[str]:
    """Every module with a function of its own."""
    skip = (nn.ModuleList, SequenceModel)
    return [name for name, module in model.named_modules() if not isinstance(module, skip)]


EACH_PART = [(name, part) for name in ZOO for part in parts_of(model_named(name))]


@pytest.mark.one_in(2)
@pytest.mark.parametrize("wanted", ["logits", "gradient"])
@pytest.mark.parametrize(("name", "part"), EACH_PART)
def test_a_forward_hook_on_any_part_fires_and_its_output_counts(name, part, wanted):
    model, tokens, seen = model_named(name), some_tokens(), []
    compiled = Compiled(model)
    before = compiled.logits(tokens)

    def double(module: nn.Module, arguments: object, out: Tensor) -> Tensor:
        seen.append(module)
        return 2 * out + 1

    model.get_submodule(part).register_forward_hook(double)
    if wanted == "logits":
        assert not torch.allclose(compiled.logits(tokens), before, atol=1e-6)
    else:
        compiled.loss_and_gradient(tokens, torch.arange(4))
    assert seen == [model.get_submodule(part)]


@each_model
def test_a_hook_that_zeroes_a_mixer_makes_its_block_the_identity(name):
    model, tokens = model_named(name), some_tokens()
    for block in model.layers:
        block.mixer.register_forward_hook(lambda module, arguments, out: torch.zeros_like(out))
    x = model.embed(tokens)[:, -1]
    torch.testing.assert_close(Compiled(model).logits(tokens), model.lm_head(model.norm_f(x)))


@each_model
def test_a_hook_on_the_last_block_sees_every_position(name):
    model, shapes = model_named(name), []
    last = model.layers[-1]
    for part in (last, last.norm, last.mixer):
        part.register_forward_hook(lambda module, given, out: shapes.append(tuple(out.shape)))
    model(some_tokens())
    assert shapes == [(4, 9, WIDTH)] * 3


@each_mixer
def test_a_gradient_hook_on_a_projection_fires(name):
    mixer, seen = mixer_named(name), []
    mixer.in_proj.register_full_backward_hook(lambda *_: seen.append("backward"))
    mixer(rows(2, 5, WIDTH).requires_grad_()).sum().backward()
    assert seen == ["backward"]


# Replaced parts


class LowRank(nn.Module):
    """A projection with an update of rank one beside it."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.weight = base.weight  # as some adapters offer it
        self.bias = base.bias
        self.down = nn.Linear(base.in_features, 1, bias=False)
        self.up = nn.Linear(1, base.out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(x))


class Adapted(nn.Linear):
    """A projection that computes something else with the same weight."""

    def forward(self, x: Tensor) -> Tensor:
        return 3 * super().forward(x)


def give_a_bias(mixer: Mixer) -> None:
    mixer.in_proj.bias = nn.Parameter(torch.ones(mixer.in_proj.out_features))


def adapt(mixer: Mixer) -> None:
    mixer.in_proj = LowRank(mixer.in_proj)


def adapt_the_class(mixer: Mixer) -> None:
    mixer.out_proj.__class__ = Adapted


def replace_the_method(mixer: Mixer) -> None:
    mixer.out_proj.forward = lambda x: nn.functional.linear(x, 2 * mixer.out_proj.weight)


def parametrize(mixer: Mixer) -> None:
    nn.utils.parametrizations.weight_norm(mixer.in_proj)
    mixer.in_proj.parametrizations.weight.original0.data *= 2


def widen_by_dropout(mixer: Mixer) -> None:
    mixer.out_proj = nn.Sequential(mixer.out_proj, nn.Hardtanh(-0.01, 0.01))


CHANGES = [give_a_bias, adapt, adapt_the_class, replace_the_method, parametrize, widen_by_dropout]


def by_hand(mixer: Mixer, x: Tensor) -> Tensor:
    """The mixer from the outputs of its parts, in PyTorch alone."""
    if isinstance(mixer, AttentionMixer):
        q, k, v = mixer.in_proj(x).chunk(3, dim=-1)
        mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        scores = (q @ k.transpose(1, 2) / WIDTH**0.5).masked_fill(mask, -torch.inf)
        return mixer.out_proj(scores.softmax(-1) @ v)
    assert isinstance(mixer, MambaMixer)
    u, z = mixer.in_proj(x).chunk(2, dim=-1)
    u = nn.functional.silu(mixer.conv1d(u.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2))
    low, B, C = mixer.x_proj(u).split([1, 16, 16], dim=-1)
    delta = nn.functional.softplus(mixer.dt_proj(low))
    h, y = torch.zeros(x.shape[0], *mixer.A_log.shape), []
    for t in range(x.shape[1]):
        decay = torch.exp(-delta[:, t, :, None] * mixer.A_log.exp())
        h = decay * h + (delta * u)[:, t, :, None] * B[:, t, None]
        y.append((h * C[:, t, None]).sum(-1))
    return mixer.out_proj((torch.stack(y, 1) + mixer.D * u) * nn.functional.silu(z))


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", ["mamba", "attention"])
def test_a_replaced_part_of_a_mixer_is_used(name, change):
    mixer, x = mixer_named(name), rows(3, 7, WIDTH)
    before = mixer(x).detach()
    change(mixer)
    assert not torch.allclose(mixer(x), before, atol=1e-6)
    torch.testing.assert_close(mixer(x), by_hand(mixer, x), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(mixer(x, last=True), by_hand(mixer, x)[:, -1:], rtol=1e-4, atol=1e-6)


def smoothed(model: SequenceModel) -> None:
    model.layers[0].norm = nn.RMSNorm(WIDTH)


def unnormed(model: SequenceModel) -> None:
    model.layers[1].norm = nn.Identity()


def dropped(model: SequenceModel) -> None:
    model.layers[-1].mixer = nn.Sequential(model.layers[-1].mixer, nn.Dropout(1.0))


def skipped(model: SequenceModel) -> None:
    model.layers[-1] = nn.Identity()


def biased(model: SequenceModel) -> None:
    model.lm_head.bias = nn.Parameter(torch.arange(16.0))


def coarser(model: SequenceModel) -> None:
    model.norm_f.eps = 1.0


@pytest.mark.parametrize("change", [smoothed, unnormed, dropped, skipped, biased, coarser])
@each_model
def test_a_replaced_part_of_a_model_is_used_from_the_next_call_on(name, change):
    model, tokens = model_named(name), some_tokens()
    compiled, answers = Compiled(model), torch.arange(4)
    before, first = compiled.logits(tokens), compiled.loss_and_gradient(tokens, answers)
    change(model)
    with torch.no_grad():
        x = model.embed(tokens)
        for block in model.train().layers:
            x = x + block.mixer(block.norm(x)) if isinstance(block, Block) else block(x)
        expected = model.lm_head(model.norm_f(x[:, -1]))
    loss = compiled.loss_and_gradient(tokens, answers)
    torch.testing.assert_close(loss, nn.functional.cross_entropy(expected, answers))
    assert abs(loss - first) > 1e-6
    if change is not dropped:  # which is itself in evaluation
        torch.testing.assert_close(compiled.logits(tokens), expected)
        assert not torch.allclose(compiled.logits(tokens), before, atol=1e-6)


# Tensors that are not what they seem


@each_model
def test_fake_tensors_have_shapes_and_no_numbers(name):
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = SequenceModel(named(name, width=WIDTH))
        tokens = torch.zeros(4, 9, dtype=torch.int64)
        assert model(tokens).shape == (4, 16)
        assert Compiled(model).logits(tokens).shape == (4, 16)


@each_model
def test_a_real_model_under_a_fake_mode_reads_no_memory(name):
    model = model_named(name)
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert model(torch.zeros(4, 9, dtype=torch.int64)).shape == (4, 16)


@each_model
def test_a_graph_of_a_model_gives_the_models_logits(name):
    model, tokens, other = model_named(name), some_tokens(), some_tokens(4, 9).flip(0)
    with torch.no_grad():
        torch.testing.assert_close(make_fx(model)(tokens)(other), model(other))


TRACED = """
import torch
from recall_arena.model import SequenceModel, named
for name in ("transformer-learned", "transformer-rope", "hybrid-b"):  # every kind of layer
    model, tokens = SequenceModel(named(name)), torch.randint(16, (4, 9))
    with torch.no_grad():
        traced = torch.jit.trace(model, tokens)
        torch.testing.assert_close(traced(tokens.flip(0)), model(tokens.flip(0)))
"""


def test_a_traced_model_gives_the_models_logits():
    """In a process of its own: tracing makes tensors of sizes, which the tests' checks refuse."""
    words = [sys.executable, "-W", "ignore", "-c", TRACED]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@each_mixer
def test_a_lazily_negated_tensor_is_read_with_its_sign(name):
    mixer, pair = mixer_named(name), torch.view_as_complex(rows(2, 5, WIDTH, 2))
    x = pair.conj().imag
    assert x.is_neg()
    torch.testing.assert_close(mixer(x), mixer(x.clone().resolve_neg()))


@each_mixer
def test_autocast_gives_its_own_type(name):
    mixer, x = mixer_named(name), rows(2, 5, WIDTH)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert mixer(x).dtype == torch.bfloat16


@each_mixer
def test_a_tensor_of_another_class_goes_through_its_own_functions(name):
    class Counting(Tensor):
        calls = 0

        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            cls.calls += 1
            return super().__torch_function__(func, types, args, kwargs or {})

    mixer, x = mixer_named(name), rows(2, 5, WIDTH)
    out = mixer(x.as_subclass(Counting))
    assert Counting.calls > 3
    torch.testing.assert_close(out.as_subclass(Tensor), mixer(x))


@each_model
@pytest.mark.parametrize("replaced", ["embedding.weight", "lm_head.weight", "norm_f.weight"])
def test_weights_that_are_put_elsewhere_are_found(name, replaced):
    model, tokens, answers = model_named(name), some_tokens(), torch.arange(4)
    compiled = Compiled(model)
    compiled.loss_and_gradient(tokens, answers)
    model.get_parameter(replaced).data = rows(*model.get_parameter(replaced).shape)
    _ = [torch.full((size,), 3.0) for size in range(1, 500)]  # takes the memory that was freed
    expected = nn.functional.cross_entropy(model(tokens), answers).detach()
    torch.testing.assert_close(compiled.loss_and_gradient(tokens, answers), expected)


def test_a_model_may_be_compiled_by_torch():
    """Dynamo sees PyTorch's operations and nothing that it cannot follow."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = SequenceModel(ModelSpec(("attention-rope", "mamba"), width=WIDTH))
    tokens = some_tokens(2, 5)
    with torch.no_grad():
        exported = torch.export.export(model, (tokens,)).module()
        torch.testing.assert_close(exported(tokens), model(tokens))


# Marks for other people's initialisation


def test_the_weights_that_must_not_be_initialised_or_decayed_are_marked():
    mixer = Mamba().build(WIDTH)
    marked = {name: set(vars(weight)) for name, weight in mixer.named_parameters() if vars(weight)}
    assert marked == {
        "dt_proj.bias": {"_no_reinit"},
        "A_log": {"_no_weight_decay"},
        "D": {"_no_weight_decay"},
    }
