"""A model's compiled form is held to the model, layer by layer, in float64."""

import copy
import functools
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import jaxtyping
import pytest
import torch
from kernel_checks import assert_identical, assert_near, needs_kernels
from torch import Tensor
from torch.nn import functional as F
from training_checks import steps

from recall_arena.compiled import Compiled, stack_of
from recall_arena.kernels import Stack, StackLogits, native
from recall_arena.kernels.stack import are_ids
from recall_arena.kernels.stack_calls import _LossCall
from recall_arena.mixers import Attention, GatedDelta, GatedDeltaMixer, Mamba, MambaMixer
from recall_arena.model import Block, ModelSpec, SequenceModel, named
from recall_arena.seeds import generator
from recall_arena.tasks import AssociativeRecall, Batch
from recall_arena.training import Schedule
from recall_arena.zoo import ZOO

TOLERANCE = 1e-5  # of the largest number: the weights' gradients have up to 20,000 terms
DIVIDED = 5e-5  # where an output is normalised, rounding is divided by outputs that are near zero
CANCELLING = {  # gradients that are small sums of large terms
    "CAT": 1e-4,  # of q_conv1d with two tokens; PyTorch's own float32 is off by 5e-5
    "SwiGLU": 2e-4,  # of A_log with 257 positions, a sum of -2e-4; PyTorch's float32 is off by 3e-5
    "trained embedding": 3e-5,  # of dt_proj.bias at width 64
}
REACH = 300

ODD = {  # each layer's mixer, of sizes and options that no study uses; or a model as text
    "odd mamba": (Mamba(state=5, expand=3, window=3), Mamba(state=16)),
    "mamba without convolution": (Mamba(window=1), Mamba(window=1)),
    "two heads": (Attention(heads=2), Attention(heads=2, positions="rope", base=100.0)),
    "one layer": (Mamba(),),
    "gated delta": (GatedDelta(), GatedDelta(heads=2, window=3)),
    "KDA and DeltaNet": (
        GatedDelta(expand=1, decay="channel", gate="sigmoid"),
        GatedDelta(heads=4, decay="none", gate="none", window=1, negative_eigenvalues=True),
    ),
    "one attention": (Attention(positions="rope"),),
    "biases": "mamba(bias=True), attention-rope(bias=True, heads=2)",
    "attention with biases first": "attention(bias=True), mamba(conv_bias=False)",
    "CAT": "attention(q_window=3, v_window=4), attention(heads=2, q_window=2, k_window=4)",
    "CAT and RoPE": "attention-rope(k_window=16), attention-rope(q_window=4, v_window=4)",
    "RMS norm": "mamba, attention-rope(bias=True); norm=rms",
    "MLP": "attention, mamba; mlp=gelu",
    "SwiGLU": "gated-delta, attention-rope; mlp=swiglu; mlp_expand=3; norm=rms",
    "trained embedding": "attention, mamba; embedding=trained",
    "everything trained": "attention; embedding=trained; positions=learned; mlp=gelu; norm=rms",
    "sinusoidal": "attention, mamba; positions=sinusoidal",
}
SHAPES = [  # batch, length, width, vocabulary; the first layer looks tokens up where they are few
    *((2, length, 8, 16) for length in (1, 2, 3, 15, 16, 17, 64, 100, 257)),
    *((3, 17, width, 16) for width in (4, 12, 16, 20)),
    *((64, 65, 8, vocabulary) for vocabulary in (2, 3, 16, 17, 65, 66)),
    (70, 9, 8, 5),  # more sequences than portions
    (17, 65, 64, 16),
    (40, 33, 64, 7),
]

each_model = pytest.mark.parametrize("name", [*ZOO, *ODD])


def made(name: str, width: int = 8, vocabulary: int = 16) -> SequenceModel:
    """A model whose every weight is off its first value."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = ODD.get(name, name)
        if isinstance(layers, str):
            spec = named(layers, vocabulary=vocabulary, width=width, longest_context=REACH)
        else:
            spec = ModelSpec(layers, vocabulary, width)
        model = SequenceModel(spec)
        for each, weight in model.named_parameters():
            if "norm" in each:
                torch.nn.init.normal_(weight)
        return model


def batch_of(batch: int, length: int, vocabulary: int = 16) -> Batch:
    rng = generator("stack", batch, length)
    tokens = torch.randint(vocabulary, (batch, length), generator=rng)
    return Batch.asked_last(tokens, torch.randint(vocabulary, (batch,), generator=rng))


def by_autograd(model: SequenceModel, batch: Batch) -> dict[str, Tensor]:
    """Logits, loss and gradients of every trained weight, layer by layer."""
    wanted = {name: p for name, p in model.named_parameters() if p.requires_grad}
    logits = model(batch.tokens)
    loss = F.cross_entropy(logits, batch.answers)
    gradients = torch.autograd.grad(loss, list(wanted.values()))
    named = dict(zip(wanted, gradients, strict=True))
    return {"logits": logits.detach(), "loss": loss.detach(), **named}


def stack_in(model: SequenceModel) -> Stack:
    stack = stack_of(model, REACH)
    assert stack is not None
    return stack


def is_served(model: SequenceModel, tokens: Tensor) -> bool:
    """Whether the kernel for whole models computes the logits of these tokens."""
    compiled = Compiled(model)
    plan = compiled._current(tokens.shape[1])
    return plan is not None and plan.logits(tokens) is not None


def by_stack(model: SequenceModel, batch: Batch) -> dict[str, Tensor]:
    """The same by the kernel; what stood in `grad` before must not count."""
    wanted = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for weight in wanted.values():
        weight.grad = torch.full_like(weight, 7.0)
    compiled = Compiled(model)
    loss = compiled.loss_and_gradient(batch.tokens, batch.answers)
    logits = compiled.logits(batch.tokens)
    gradients = {name: weight.grad.clone() for name, weight in wanted.items()}
    return {"logits": logits, "loss": loss, **gradients}


@functools.cache  # computed once for all instruction sets
def exact(name: str, batch: int, length: int, width: int, vocabulary: int) -> dict[str, Tensor]:
    return by_autograd(made(name, width, vocabulary).double(), batch_of(batch, length, vocabulary))


@pytest.mark.one_in(9)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@each_model
@pytest.mark.usefixtures("instruction_set")
def test_logits_loss_and_gradients_are_those_of_the_model(name, shape):
    batch, length, width, vocabulary = shape
    model, data = made(name, width, vocabulary), batch_of(batch, length, vocabulary)
    assert is_served(model, data.tokens)
    delta = any(isinstance(block.mixer, GatedDeltaMixer) for block in model.layers)
    tolerance = CANCELLING.get(name, DIVIDED if delta else TOLERANCE)
    assert_near(by_stack(model, data), exact(name, *shape), tolerance)


@needs_kernels
@pytest.mark.parametrize(("vocabulary", "looked_up"), [(16, True), (130, True), (131, False)])
def test_tokens_are_looked_up_where_there_are_few(vocabulary, looked_up):
    """Each of 16 portions projects every token once: 2 x 16 x 130 = 64 x 65."""
    call = _LossCall(stack_in(made("mamba", vocabulary=vocabulary)), torch.Size((64, 65)))
    assert bool(call.struct.gathered) == looked_up


@pytest.mark.one_in(2)
@each_model
@pytest.mark.usefixtures("instruction_set", "shared_out")
def test_repeats_and_threads_change_no_bit(name):
    model, batch = made(name, 16), batch_of(37, 33)
    torch.set_num_threads(1)
    first = by_stack(model, batch)
    for threads in (1, 2, 3, 40):
        torch.set_num_threads(threads)
        assert_identical(by_stack(model, batch), first)


@each_model
@needs_kernels
def test_a_sequence_does_not_depend_on_its_batch(name):
    """Whether its tokens are looked up or not."""
    model, batch = made(name), batch_of(70, 33)
    logits = Compiled(model).logits
    together = logits(batch.tokens)
    for one in (0, 2, 69):
        assert torch.equal(logits(batch.tokens[one : one + 1]), together[one : one + 1])


@each_model
@needs_kernels
def test_a_weight_that_is_not_trained_gets_no_gradient_and_the_others_keep_theirs(name):
    model, batch = made(name), batch_of(5, 9)
    everything = by_stack(model, batch)
    for frozen, weight in model.named_parameters():
        if frozen == "embedding.weight":
            continue
        weight.requires_grad_(False)
        weight.grad = None
        some = by_stack(model, batch)
        weight.requires_grad_(True)
        assert frozen not in some
        assert weight.grad is None
        assert_identical(some, {each: everything[each] for each in some})


def test_an_embedding_may_be_trained_from_any_step_on():
    model, batch = made("mamba"), batch_of(5, 9)
    compiled = Compiled(model)
    for trained in (False, True, False, True):
        model.embedding.weight.requires_grad_(trained).grad = None
        compiled.loss_and_gradient(batch.tokens, batch.answers)
        expected = by_autograd(copy.deepcopy(model).double(), batch)
        found = {name: w.grad for name, w in model.named_parameters() if w.grad is not None}
        assert_near(found, {name: expected[name] for name in found}, TOLERANCE)
        assert ("embedding.weight" in found) == trained


def test_sinusoidal_positions_reach_whatever_sequence_comes():
    model = made("sinusoidal")
    compiled = Compiled(model)
    for length in (3, 200, 9, 1):
        tokens = batch_of(2, length).tokens
        torch.testing.assert_close(compiled.logits(tokens), model(tokens).detach())


@needs_kernels
def test_gradients_are_made_where_there_are_none():
    model, batch = made("hybrid-b"), batch_of(5, 9)
    expected = by_stack(model, batch)
    for weight in model.parameters():
        weight.grad = None
    Compiled(model).loss_and_gradient(batch.tokens, batch.answers)
    for name, weight in model.named_parameters():
        assert weight.requires_grad == (weight.grad is not None)
        assert weight.grad is None or torch.equal(weight.grad, expected[name])


@needs_kernels
def test_one_loss_serves_batches_of_several_shapes_as_the_weights_change():
    model = made("transformer-rope")
    batches = [batch_of(5, 9), batch_of(3, 17), batch_of(5, 9)]
    loss = Compiled(model).loss_and_gradient
    for batch in batches:
        with torch.no_grad():
            model.lm_head.weight.mul_(1.5)
        expected = by_autograd(model, batch)["loss"]
        torch.testing.assert_close(loss(batch.tokens, batch.answers), expected)


@needs_kernels
@pytest.mark.parametrize("name", ZOO)
def test_training_by_the_kernel_and_by_autograd_differ_by_rounding_alone(name):
    losses = []
    for watched in (False, True):
        model = made(name)
        if watched:
            model.lm_head.register_forward_hook(lambda *_: None)
        schedule = Schedule(rate=1e-3, steps=8, context=16, batch=8)
        losses.append(list(steps(model, AssociativeRecall(), schedule, seed=0)))
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert losses[0] != losses[1]  # else the same way was gone twice


# Where weights and gradients lie


@needs_kernels
def test_gradients_that_were_dropped_are_made_again():
    model, batch = made("hybrid-a"), batch_of(5, 9)
    expected = by_stack(model, batch)
    loss = Compiled(model).loss_and_gradient
    for _ in range(3):
        loss(batch.tokens, batch.answers)
        for weight in model.parameters():
            weight.grad = None
        del weight
        _ = [torch.full((size,), 3.0) for size in range(1, 500)]
    loss(batch.tokens, batch.answers)
    for name, weight in model.named_parameters():
        assert weight.grad is None or torch.equal(weight.grad, expected[name])


@needs_kernels
def test_gradients_in_another_layout_are_replaced():
    model, batch = made("mamba"), batch_of(5, 9)
    expected = by_stack(model, batch)["lm_head.weight"]
    model.lm_head.weight.grad = torch.zeros(8, 16).t()
    Compiled(model).loss_and_gradient(batch.tokens, batch.answers)
    assert torch.equal(model.lm_head.weight.grad, expected)


@needs_kernels
def test_weights_may_move_between_calls():
    model, batch = made("mamba"), batch_of(5, 9)
    loss = Compiled(model).loss_and_gradient
    first = loss(batch.tokens, batch.answers)
    for weight in model.parameters():
        weight.data = weight.data.clone()
    assert loss(batch.tokens, batch.answers) == first
    model.lm_head.weight.data = torch.zeros(16, 8)
    assert loss(batch.tokens, batch.answers).item() == pytest.approx(math.log(16))


@needs_kernels
def test_a_layer_that_stands_twice_in_a_stack_reads_the_last_position_at_the_end_alone():
    model, batch = made("mamba"), batch_of(5, 9)
    stack = stack_in(model)
    twice = StackLogits(replace(stack, blocks=(stack.blocks[0],) * 2))
    model.layers[1] = model.layers[0]
    torch.testing.assert_close(twice(batch.tokens), model(batch.tokens).detach())


# Who is not served


def hook_a_weight(model: SequenceModel) -> None:
    model.norm_f.bias.register_hook(torch.zeros_like)


def hook_a_weight_afterwards(model: SequenceModel) -> None:
    model.norm_f.bias.register_post_accumulate_grad_hook(lambda _: None)


def hook_a_part(model: SequenceModel) -> None:
    model.layers[0].register_forward_hook(lambda *_: None)


def hook_before_a_part(model: SequenceModel) -> None:
    model.norm_f.register_forward_pre_hook(lambda *_: None)


def hook_a_gradient(model: SequenceModel) -> None:
    model.layers[1].register_full_backward_hook(lambda *_: None)


def hook_before_a_gradient(model: SequenceModel) -> None:
    model.layers[1].register_full_backward_pre_hook(lambda *_: None)


def go_to_float64(model: SequenceModel) -> None:
    model.double()


class Doubled(MambaMixer):
    def forward(self, x: Tensor, last: bool = False) -> Tensor:
        return 2 * super().forward(x, last)


class Undecided(SequenceModel):
    def forward(self, tokens: Tensor) -> Tensor:
        return 0.5 * super().forward(tokens)


class Halved(Block):
    def forward(self, x: Tensor, last: bool = False) -> Tensor:
        return 0.5 * super().forward(x, last)


def use_another_mixer(model: SequenceModel) -> None:
    model.layers[0].mixer = Doubled(8, Mamba())


def use_another_block(model: SequenceModel) -> None:
    model.layers[0].__class__ = Halved


def use_another_model(model: SequenceModel) -> None:
    model.__class__ = Undecided


def use_no_norm(model: SequenceModel) -> None:
    model.norm_f = torch.nn.Identity()


def use_a_norm_without_weights(model: SequenceModel) -> None:
    model.norm_f = torch.nn.LayerNorm(8, elementwise_affine=False)


def use_a_readout_with_bias(model: SequenceModel) -> None:
    model.lm_head = torch.nn.Linear(8, 16)


def share_a_norm(model: SequenceModel) -> None:
    model.norm_f = model.layers[0].norm


def share_a_layer(model: SequenceModel) -> None:
    model.layers[1] = model.layers[0]


def parametrize_the_readout(model: SequenceModel) -> None:
    torch.nn.utils.parametrizations.weight_norm(model.lm_head)


def parametrize_a_projection(model: SequenceModel) -> None:
    torch.nn.utils.parametrizations.weight_norm(model.layers[0].mixer.in_proj)


NOT_SERVED = [
    *(hook_a_weight, hook_a_weight_afterwards, hook_a_part, hook_before_a_part),
    *(hook_a_gradient, hook_before_a_gradient, go_to_float64),
    *(use_another_mixer, use_another_block, use_another_model, use_no_norm),
    *(use_a_norm_without_weights, use_a_readout_with_bias, share_a_norm, share_a_layer),
    *(parametrize_the_readout, parametrize_a_projection),
]


@pytest.mark.parametrize("change", NOT_SERVED)
def test_what_the_kernel_would_not_do_is_left_to_autograd(change):
    model, batch = made("hybrid-a"), batch_of(4, 9)
    change(model)
    compiled = Compiled(model)
    torch.testing.assert_close(compiled.logits(batch.tokens), model(batch.tokens).detach())
    expected = by_autograd(model.train(), batch)
    compiled.loss_and_gradient(batch.tokens, batch.answers)
    weights = dict(model.named_parameters())
    for name in expected.keys() - {"logits", "loss"}:
        assert torch.equal(weights[name].grad, expected[name]), name
    schedule = Schedule(rate=1e-2, steps=15, context=4, batch=32, warmup=1)
    losses = list(steps(model, AssociativeRecall(vocabulary=4), schedule, seed=0))
    assert sum(losses[-5:]) < sum(losses[:5])


@needs_kernels
def test_a_hook_is_called_where_no_gradient_is_wanted_too():
    model, seen = made("mamba"), []
    model.layers[0].register_forward_hook(lambda *_: seen.append("layer"))
    model.norm_f.register_forward_pre_hook(lambda *_: seen.append("norm"))
    Compiled(model).logits(batch_of(2, 5).tokens)
    assert seen == ["layer", "norm"]


@needs_kernels
def test_a_hook_that_comes_in_the_middle_of_training_is_called_from_then_on():
    model, seen = made("mamba"), []
    schedule = Schedule(rate=1e-2, steps=6, context=9, batch=5)
    loop = steps(model, AssociativeRecall(), schedule, seed=0)
    next(loop), next(loop)
    hook = model.norm_f.register_forward_hook(lambda *_: seen.append("norm"))
    next(loop), next(loop)
    hook.remove()
    next(loop)
    assert seen == ["norm"] * 2


@needs_kernels
def test_a_hook_for_all_modules_is_called():
    model, batch, seen = made("mamba"), batch_of(4, 9), []
    hook = torch.nn.modules.module.register_module_forward_hook(lambda *_: seen.append("any"))
    try:
        Compiled(model).logits(batch.tokens)
    finally:
        hook.remove()
    assert len(seen) > 1


@needs_kernels
def test_long_attention_is_left_to_pytorch():
    model, tokens = made("transformer-rope"), batch_of(2, 600).tokens
    assert not is_served(model, tokens)
    assert is_served(model, tokens[:, :500])


# Mistakes


@needs_kernels
@pytest.mark.parametrize("wrong", [-1, 16, 2**40])
@pytest.mark.parametrize("name", ["mamba", "transformer-learned"])
def test_a_token_or_an_answer_that_does_not_exist_is_refused(name, wrong):
    model, batch = made(name), batch_of(4, 9)
    loss = Compiled(model).loss_and_gradient
    tokens, answers = batch.tokens.clone(), batch.answers.clone()
    tokens[3, 8] = answers[2] = wrong
    for arguments in ((tokens, batch.answers), (batch.tokens, answers)):
        with pytest.raises(IndexError, match=r"must be in 0\.\.15"):
            loss(*arguments)
    with pytest.raises(IndexError, match=r"must be in 0\.\.15"):
        Compiled(model).logits(tokens)
    assert loss(batch.tokens, batch.answers).isfinite()


@pytest.mark.parametrize(
    "misread",
    [
        torch.zeros(4, 9, dtype=torch.int32),
        torch.zeros(4, 9, 1, dtype=torch.int64),
        torch.zeros(4, 9, dtype=torch.int64, device="meta"),
        torch.zeros(4, 9, dtype=torch.int64).as_subclass(type("Ids", (Tensor,), {})),
    ],
)
def test_tokens_that_the_kernel_would_misread_are_told_apart(misread):
    assert are_ids(torch.zeros(4, 9, dtype=torch.int64), 2)
    assert not are_ids(misread, 2)


@needs_kernels
def test_a_head_that_rope_cannot_turn_is_refused_as_ever():
    model = SequenceModel(ModelSpec(("attention-rope", "attention-rope"), width=6))
    model.layers[0].mixer.heads = 2
    with pytest.raises(Exception, match=r"must divide|Type-check error"):
        Compiled(model).logits(batch_of(2, 5).tokens)


@needs_kernels
def test_learned_positions_that_do_not_reach_are_refused_as_ever():
    model, tokens = made("transformer-learned"), batch_of(2, REACH + 2).tokens
    with pytest.raises(ValueError, match=f"reach {REACH + 1} tokens"):
        Compiled(model).logits(tokens)


@needs_kernels
@pytest.mark.parametrize("huge", [1e30, float("inf"), float("nan")])
def test_a_model_that_has_diverged_says_so(huge):
    model, batch = made("mamba"), batch_of(4, 9)
    with torch.no_grad():
        model.lm_head.weight.fill_(huge)
        model.lm_head.weight[::2] *= -1
    loss = Compiled(model).loss_and_gradient(batch.tokens, batch.answers)
    expected = F.cross_entropy(model(batch.tokens), batch.answers)
    assert loss.isfinite() == expected.isfinite()


@pytest.mark.parametrize("layers", [("mamba", "attention"), ("attention-rope", "mamba")])
@pytest.mark.usefixtures("instruction_set")
def test_weights_of_any_size_have_gradients(layers):
    """What only fills up a vector must not overflow, where scores are in the hundreds."""
    for seed in range(20):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = SequenceModel(ModelSpec(layers, width=34))
            for name, weight in model.named_parameters():
                if name != "embedding.weight":
                    torch.nn.init.normal_(weight)
        found = by_stack(model, batch_of(3, 8))
        assert all(tensor.isfinite().all() for tensor in found.values())


@needs_kernels
def test_no_sequences_have_no_logits():
    assert Compiled(made("hybrid-a")).logits(batch_of(0, 9).tokens).shape == (0, 16)


@needs_kernels
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="Linux tells how many pages")
@pytest.mark.parametrize(
    ("calls", "pages"),  # of 4 kB: 400 bytes a call would be seen, or two hundred bytes
    [(1000, 100), pytest.param(10_000, 500, marks=pytest.mark.slow)],
)
def test_many_calls_leave_no_memory_behind(calls, pages, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as outside of tests
    model, batch = made("hybrid-b"), batch_of(2, 9)
    compiled = Compiled(model)

    def in_use_after(calls: int) -> int:
        for _ in range(calls):
            compiled.loss_and_gradient(batch.tokens, batch.answers)
            compiled.logits(batch.tokens)
        return int(Path("/proc/self/statm").read_text().split()[1])

    before = in_use_after(500)
    assert in_use_after(calls) - before < pages


@needs_kernels
def test_threads_that_train_side_by_side_do_not_mix(monkeypatch):
    """Losses of two models whose steps alternate are those of each alone."""
    monkeypatch.setattr(native, "WORTH_A_THREAD", 1)
    schedule = Schedule(rate=1e-2, steps=6, context=9, batch=5)
    alone = [list(steps(made(name), AssociativeRecall(), schedule, 0)) for name in ZOO]
    loops = [steps(made(name), AssociativeRecall(), schedule, 0) for name in ZOO]
    side_by_side = list(zip(*(list(row) for row in zip(*loops, strict=True)), strict=True))
    assert [list(row) for row in side_by_side] == alone
    assert all(a != b for a, b in pairwise(alone))
