"""Training: the rate's schedule, what a step does, and that the same seed does the same."""

import copy
import dataclasses
import itertools
import math
from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from training_checks import steps

from recall_arena.compiled import Compiled
from recall_arena.evaluation import accuracy, held_out
from recall_arena.model import ModelSpec, SequenceModel, named
from recall_arena.seeds import generator
from recall_arena.tasks import AssociativeRecall, Batch
from recall_arena.training import Schedule

TASK = AssociativeRecall(queries=4)
SHORT = Schedule(rate=0.01, steps=8, context=8, batch=4, warmup=2)


def fresh(*layers: str, seed: int = 0) -> SequenceModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SequenceModel(ModelSpec(layers))


def weights(model: SequenceModel) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


# The learning rate


def test_the_rate_rises_stays_and_falls():
    schedule = Schedule(rate=2.0, steps=100, warmup=10, decay=0.2)
    rates = [schedule.rate_at(step) for step in range(100)]

    assert rates[:10] == pytest.approx([0.2 * (step + 1) for step in range(10)])
    assert rates[10:81] == pytest.approx([2.0] * 71)
    assert rates[80:] == pytest.approx([0.1 * (100 - step) for step in range(80, 100)])
    assert rates[-1] == pytest.approx(0.1)


@given(
    st.builds(
        Schedule,
        rate=st.floats(1e-6, 10),
        steps=st.integers(1, 300),
        warmup=st.integers(0, 400),
        decay=st.floats(0, 1),
    )
)
def test_the_rate_is_positive_never_above_its_peak_and_has_one_hill(schedule):
    rates = [schedule.rate_at(step) for step in range(schedule.steps)]
    top = rates.index(max(rates))

    assert all(0 < rate <= schedule.rate for rate in rates)
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)


@pytest.mark.parametrize("steps", [1, 2, 50])
def test_without_warmup_and_decay_the_rate_is_constant(steps):
    schedule = Schedule(rate=0.5, steps=steps, warmup=0, decay=0.0)
    assert [schedule.rate_at(step) for step in range(steps)] == [0.5] * steps


def test_a_decay_over_the_whole_budget_falls_from_the_first_step():
    schedule = Schedule(rate=1.0, steps=4, warmup=0, decay=1.0)
    assert [schedule.rate_at(step) for step in range(4)] == [1.0, 0.75, 0.5, 0.25]


def test_a_warmup_longer_than_the_budget_never_reaches_the_peak():
    schedule = Schedule(rate=1.0, steps=10, warmup=100, decay=0.0)
    assert max(map(schedule.rate_at, range(10))) == pytest.approx(0.1)


@pytest.mark.parametrize("name", ["rate", "steps", "context", "batch", "clip"])
@pytest.mark.parametrize("value", [0, -1])
def test_what_must_be_positive_is_refused_otherwise(name, value):
    kind = float if name in ("rate", "clip") else int
    with pytest.raises(ValueError, match=f"{name} must be positive, got {value}"):
        Schedule(**{"rate": 0.1, "steps": 10, name: kind(value)})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"warmup": -1}, "warmup must not be negative, got -1"),
        ({"decay": -0.1}, r"decay must be in 0\.\.1, got -0\.1"),
        ({"decay": 1.1}, r"decay must be in 0\.\.1, got 1\.1"),
        ({"decay": math.nan}, "decay: should be a finite number, got nan"),
    ],
)
def test_impossible_warmup_and_decay_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Schedule(rate=0.1, steps=10, **fields)


@pytest.mark.parametrize("name", ["rate", "clip"])
def test_nan_is_not_positive(name):
    with pytest.raises(ValueError, match=f"{name}: should be a finite number, got nan"):
        Schedule(**{"rate": 0.1, "steps": 10, name: math.nan})


# Random numbers from names


def test_a_generator_depends_on_its_names_and_on_nothing_else():
    """The number is a BLAKE2b hash of the names' repr.  If it changes, so does every outcome: raise
    `runs.REVISION`, and say so in the changelog.
    """
    assert generator("train", 0, 0).initial_seed() == 3747994064
    assert generator("train", 0, 0).initial_seed() == generator("train", 0, 0).initial_seed()
    names = [("train", 0, 0), ("train", 0, 1), ("train", 1, 0), ("test", 0, 0), ("train", "0", 0)]
    assert len({generator(*each).initial_seed() for each in names}) == len(names)


# What a step does


def test_mamba_learns_the_induction_head():
    model, task = fresh("mamba"), AssociativeRecall()
    schedule = Schedule(rate=0.01, steps=400, context=16, warmup=20)
    losses = list(steps(model, task, schedule, seed=0))

    assert sum(losses[:10]) / 10 == pytest.approx(math.log(16), abs=0.4)
    assert sum(losses[-10:]) / 10 < 0.5
    assert accuracy(Compiled(model).logits, held_out(task, 16, 500, "test")).accuracy > 0.9


@pytest.mark.parametrize(
    ("name", "losses"),
    [
        ("mamba", [2.986042, 2.839589, 2.969054]),
        ("transformer-learned", [2.973392, 2.916587, 2.792135]),
        ("transformer-rope", [2.936902, 2.831941, 2.908081]),
        ("transformer-nope", [2.932101, 2.847795, 2.902802]),
        ("hybrid-a", [3.034231, 2.771532, 2.957939]),
        ("hybrid-b", [2.898529, 2.810326, 2.771467]),
    ],
)
def test_the_first_losses_are_these(name, losses):
    """They may change with a task's, a mixer's, the first weights' or the optimizer's definition.

    Every record's outcome changes with them: raise `runs.REVISION`, and say so in the changelog.
    Faster kernels must not change them; other processors round otherwise, by less than 1e-5.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        spec = named(name, vocabulary=16, width=8, longest_context=64)
        model = SequenceModel(spec)
    schedule = Schedule(rate=0.01, steps=3, context=64, batch=64, warmup=0, decay=0.0)
    assert list(steps(model, TASK, schedule, seed=0)) == pytest.approx(losses, abs=1e-5)


def test_a_loss_is_the_cross_entropy_of_the_last_position():
    model = fresh("mamba", "attention")
    batch = TASK.sample(4, 8, generator("train", 7, 0))
    with torch.no_grad():
        shares = model(batch.tokens).exp()
    shares = shares[range(4), batch.answers] / shares.sum(dim=1)

    loss = next(steps(model, TASK, SHORT, seed=7))
    assert loss == pytest.approx(-shares.log().mean().item(), rel=1e-5)


def test_a_step_is_made_for_each_item_asked_for_and_not_before():
    model = fresh("attention")
    before = weights(model)
    made = steps(model, TASK, SHORT, seed=0)
    torch.testing.assert_close(weights(model), before, rtol=0, atol=0)

    next(made)
    after_one = weights(model)
    assert not torch.equal(after_one["lm_head.weight"], before["lm_head.weight"])
    assert torch.equal(model.lm_head.weight, after_one["lm_head.weight"])
    assert len(list(made)) == SHORT.steps - 1


def one_step(schedule: Schedule) -> tuple[SequenceModel, dict[str, torch.Tensor]]:
    model = fresh("attention")
    before = weights(model)
    next(steps(model, TASK, schedule, seed=0))
    return model, before


@pytest.mark.parametrize("warmup", [0, 10])
def test_the_first_step_goes_by_the_rate_against_the_gradients_sign(warmup):
    """As Adam's first step does; a decay of the weights would show as a step that is longer."""
    schedule = Schedule(rate=0.1, steps=100, context=8, batch=4, warmup=warmup, decay=0.0)
    model, before = one_step(schedule)
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            clear = weight.grad.abs() > 1e-4
            assert clear.any()
            expected = -schedule.rate_at(0) * weight.grad.sign()
            change = weight.detach() - before[name]
            torch.testing.assert_close(change[clear], expected[clear], rtol=1e-3, atol=1e-6)


def test_a_weight_without_gradient_stays_as_it_is():
    model = fresh("attention")
    model.layers[0].norm.bias.register_hook(torch.zeros_like)
    with torch.no_grad():
        model.layers[0].norm.bias.fill_(3.0)
    list(steps(model, TASK, SHORT, seed=0))
    assert (model.layers[0].norm.bias == 3.0).all()


def gradients(clip: float) -> torch.Tensor:
    model, _ = one_step(Schedule(rate=0.1, steps=10, context=8, batch=4, clip=clip))
    return torch.cat([w.grad.flatten() for w in model.parameters() if w.requires_grad])


def test_the_gradient_is_clipped_to_its_largest_norm_and_keeps_its_direction():
    free = gradients(clip=1e9)
    norm = free.norm()
    assert norm > 0.1
    torch.testing.assert_close(gradients(clip=2 * norm.item()), free)

    clipped = gradients(clip=0.01)
    assert clipped.norm() == pytest.approx(0.01, rel=1e-3)
    torch.testing.assert_close(clipped, free * (0.01 / norm), rtol=1e-3, atol=1e-9)


def test_the_embedding_is_never_trained():
    model = fresh("mamba", "attention")
    before = weights(model)
    list(steps(model, TASK, SHORT, seed=0))
    after = weights(model)

    unchanged = {name for name in before if torch.equal(before[name], after[name])}
    assert unchanged == {"embedding.weight"}


def test_every_step_finds_the_model_in_training_mode():
    model = fresh("attention")
    modes = []
    model.register_forward_pre_hook(lambda module, arguments: modes.append(module.training))
    for _ in steps(model, TASK, SHORT, seed=0):
        model.eval()
    assert modes == [True] * SHORT.steps


# The same seed does the same


@dataclass(frozen=True)
class Watched(AssociativeRecall):
    """The task, and every batch that it was asked for."""

    batches: list[Batch] = field(default_factory=list)

    def sample(self, batch: int, context: int, rng: torch.Generator) -> Batch:
        self.batches.append(super().sample(batch, context, rng))
        return self.batches[-1]


def test_the_batch_of_a_step_is_a_function_of_seed_and_step():
    """Whatever the model, whoever else draws in between, and however far one has come."""
    task = Watched(queries=4)
    for _ in steps(fresh("mamba"), task, SHORT, seed=3):
        torch.rand(5)
    longer = Schedule(rate=0.5, steps=20, context=8, batch=4)
    one, other = (
        steps(fresh("attention"), task, longer, 3),
        steps(fresh("mamba"), task, longer, 3),
    )
    for _ in range(SHORT.steps):
        next(one), next(other)

    expected = [TASK.sample(4, 8, generator("train", 3, step)) for step in range(SHORT.steps)]
    first, rest = task.batches[: SHORT.steps], task.batches[SHORT.steps :]
    for batches in (first, rest[::2], rest[1::2]):
        for batch, same in zip(batches, expected, strict=True):
            assert torch.equal(batch.tokens, same.tokens)
            assert torch.equal(batch.answers, same.answers)


def test_batches_of_other_steps_and_seeds_are_others():
    task = Watched(queries=4)
    for seed in (0, 1):
        list(steps(fresh("attention"), task, SHORT, seed))
    for one, other in itertools.combinations(task.batches, 2):
        assert not torch.equal(one.tokens, other.tokens)


@pytest.mark.parametrize("layers", [("mamba", "attention", "mamba"), ("attention-rope",)])
def test_the_same_seed_gives_the_same_losses_and_weights_bit_for_bit(layers):
    model = fresh(*layers)
    same = copy.deepcopy(model)
    losses = list(steps(model, TASK, SHORT, seed=0))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        assert list(steps(same, TASK, SHORT, seed=0)) == losses
    torch.testing.assert_close(weights(same), weights(model), rtol=0, atol=0)


def test_another_seed_gives_other_losses():
    one, other = (list(steps(fresh("mamba"), TASK, SHORT, seed)) for seed in (0, 1))
    assert all(a != b for a, b in zip(one, other, strict=True))


def test_training_leaves_the_global_generator_alone():
    model, before = fresh("mamba", "attention"), torch.get_rng_state()
    list(steps(model, TASK, SHORT, seed=0))
    assert torch.equal(torch.get_rng_state(), before)


# The final decay, and weight decay


def test_a_decay_of_a_fixed_number_of_steps_falls_over_these():
    schedule = Schedule(rate=1.0, steps=1000, warmup=0, decay_steps=10)
    rates = [schedule.rate_at(step) for step in range(1000)]
    assert rates[:991] == [1.0] * 991
    assert rates[990:] == pytest.approx([0.1 * (1000 - step) for step in range(990, 1000)])
    constant = Schedule(rate=1.0, steps=1000, warmup=0, decay_steps=0)
    assert {constant.rate_at(step) for step in range(1000)} == {1.0}


def by_torch(model: SequenceModel, kind: type[torch.optim.Optimizer], decay: float) -> None:
    """SHORT's steps by PyTorch's optimizer, with the parameter groups that people write."""
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    spared = {n for n in named if "norm" in n or n.endswith(("bias", "A_log", ".D"))}
    spared |= {n for n in named if n.startswith("positions")}
    groups = [
        {"params": [p for n, p in named.items() if n not in spared], "weight_decay": decay},
        {"params": [named[n] for n in spared], "weight_decay": 0.0},
    ]
    optimizer = kind(groups, lr=1.0)
    for step in range(SHORT.steps):
        batch = TASK.sample(SHORT.batch, SHORT.context, generator("train", 0, step))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(batch.tokens), batch.answers).backward()
        torch.nn.utils.clip_grad_norm_(named.values(), SHORT.clip)
        for group in optimizer.param_groups:
            group["lr"] = SHORT.rate_at(step)
        optimizer.step()


@pytest.mark.parametrize("decay", [0.0, 0.1, 3.0])
@pytest.mark.parametrize(
    ("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)]
)
def test_adam_and_adamw_are_pytorchs_and_spare_norms_biases_embeddings_and_marked_weights(
    name, kind, decay
):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        spec = ModelSpec(("mamba", "attention"), positions="learned", max_length=9)
        model = SequenceModel(spec).double()
        other = SequenceModel(spec).double()
    other.load_state_dict(model.state_dict())
    schedule = dataclasses.replace(SHORT, optimizer=name, weight_decay=decay)
    list(steps(model, TASK, schedule, seed=0))
    by_torch(other, kind, decay)
    torch.testing.assert_close(weights(model), weights(other), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"decay_steps": 9}, r"decay_steps must be in 0\.\.8, got 9"),
        ({"decay_steps": -1}, r"decay_steps must be in 0\.\.8, got -1"),
        ({"weight_decay": -0.1}, "weight_decay must not be negative"),
        ({"optimizer": "sgd"}, "optimizer: .*'adam' or 'adamw', got 'sgd'"),
    ],
)
def test_impossible_decays_and_optimizers_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SHORT, **fields)
