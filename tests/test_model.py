"""A model is what its spec says: the assignment's embedding, the named mixers, one readout."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from training_checks import steps

from recall_arena.compiled import AT_ONCE, Compiled, continues, logits_by_pieces
from recall_arena.mixers import MIXERS, AttentionMixer, MambaMixer
from recall_arena.model import ModelSpec, SequenceModel, named, unit_embedding
from recall_arena.names import unknown
from recall_arena.runs import Run, build
from recall_arena.tasks import AssociativeRecall
from recall_arena.training import Schedule
from recall_arena.zoo import ZOO

continued = MambaMixer.continued
SIX = {name: named(name, vocabulary=16, width=8, longest_context=64) for name in ZOO}


def fresh(spec: ModelSpec, seed: int = 0) -> SequenceModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SequenceModel(spec)


def some_tokens(batch: int, length: int, vocabulary: int = 16) -> torch.Tensor:
    rng = torch.Generator().manual_seed(batch * 1000 + length)
    return torch.randint(vocabulary, (batch, length), generator=rng)


@pytest.fixture(params=SIX)
def model(request: pytest.FixtureRequest) -> SequenceModel:
    return fresh(SIX[request.param])


# The embedding


@pytest.mark.parametrize(("vocabulary", "width"), [(16, 8), (16, 64), (2, 1), (100, 3)])
def test_the_embedding_is_the_one_that_numpys_global_seed_0_gives(vocabulary, width):
    before = np.random.get_state()  # noqa: NPY002
    try:
        np.random.seed(0)  # noqa: NPY002
        V = np.random.randn(vocabulary, width)  # noqa: NPY002
    finally:
        np.random.set_state(before)  # noqa: NPY002
    V = V / np.sqrt((V**2).sum(axis=1))[:, None]

    rows = unit_embedding(vocabulary, width)
    assert rows.dtype == torch.float32
    assert torch.equal(rows, torch.from_numpy(V).float())
    assert torch.equal(fresh(ModelSpec(("mamba",), vocabulary, width)).embedding.weight, rows)


def test_the_embedding_begins_with_numpys_famous_number():
    """1.764..., 0.400..., 0.978... are the first normal numbers after `numpy.random.seed(0)`."""
    row = unit_embedding(1, 3)[0]
    torch.testing.assert_close(
        row / row[0] * 1.764052, torch.tensor([1.764052, 0.400157, 0.978738])
    )
    assert row.norm() == pytest.approx(1)


def test_building_a_model_leaves_all_global_random_state_as_it_was():
    run = Run(AssociativeRecall(), SIX["hybrid-b"], Schedule(rate=0.01, steps=1), seed=5)
    np.random.rand(), torch.rand(1)  # noqa: NPY002 - a state that no seed leads to
    _, keys, position, *_ = np.random.get_state()  # noqa: NPY002
    ours = torch.get_rng_state()
    build(run)

    _, keys_after, position_after, *_ = np.random.get_state()  # noqa: NPY002
    assert position_after == position
    assert (keys_after == keys).all()
    assert torch.equal(torch.get_rng_state(), ours)


def test_only_the_embedding_is_frozen(model):
    frozen = [name for name, weight in model.named_parameters() if not weight.requires_grad]
    assert frozen == ["embedding.weight"]


def test_the_readout_is_not_tied_to_the_embedding(model):
    assert model.lm_head.weight.shape == model.embedding.weight.shape
    assert not torch.equal(model.lm_head.weight, model.embedding.weight)
    assert model.lm_head.bias is None


# Spelling a model


@pytest.mark.parametrize(
    ("name", "kinds", "rotary", "positions"),
    [
        ("transformer-learned", [AttentionMixer, AttentionMixer], ["none", "none"], 193),
        ("transformer-rope", [AttentionMixer, AttentionMixer], ["rope", "rope"], None),
        ("transformer-nope", [AttentionMixer, AttentionMixer], ["none", "none"], None),
        ("mamba", [MambaMixer, MambaMixer], [None, None], None),
        ("hybrid-a", [MambaMixer, AttentionMixer], [None, "none"], None),
        ("hybrid-b", [MambaMixer, AttentionMixer, MambaMixer], [None, "none", None], None),
    ],
)
def test_the_assignments_models_have_its_layers_and_positions(name, kinds, rotary, positions):
    spec = named(name, vocabulary=16, width=8, longest_context=192)
    model = fresh(spec)
    mixers = [block.mixer for block in model.layers]

    assert [type(mixer) for mixer in mixers] == kinds
    assert [m.positions if isinstance(m, AttentionMixer) else None for m in mixers] == rotary
    assert all(mixer.heads == 1 for mixer in mixers if isinstance(mixer, AttentionMixer))
    assert (spec.vocabulary, spec.width) == (16, 8)
    if positions is None:
        assert model.positions is None
    else:
        assert model.positions.weight.shape == (positions, 8)


def test_there_are_six_models_and_no_two_are_the_same_function():
    assert len(SIX) == len(set(SIX.values())) == 6
    tokens = some_tokens(4, 20)
    logits = [fresh(spec)(tokens) for spec in SIX.values()]
    for i, one in enumerate(logits):
        for other in logits[:i]:
            assert (one - other).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("layers", "ordered"), [("attention", False), ("attention-rope", True), ("mamba", True)]
)
def test_one_attention_layer_without_positions_cannot_see_the_order(layers, ordered):
    model = fresh(ModelSpec((layers,)))
    tokens = some_tokens(4, 12)
    turned = torch.cat([tokens[:, :-1].flip(1), tokens[:, -1:]], dim=1)
    assert torch.allclose(model(tokens), model(turned), atol=1e-6) != ordered


@given(st.lists(st.sampled_from(sorted(MIXERS)), min_size=1, max_size=5), st.integers(1, 9))
def test_any_stack_of_mixers_is_a_model(layers, length):
    model = fresh(ModelSpec(tuple(layers), vocabulary=5, width=4))
    logits = model(some_tokens(3, length, vocabulary=5))

    assert len(model.layers) == len(layers)
    assert logits.shape == (3, 5)
    assert logits.isfinite().all()


def test_a_model_may_be_written_as_the_names_of_its_mixers():
    spec = named("mamba,attention-rope", vocabulary=4, width=6, longest_context=9)
    assert spec == ModelSpec(("mamba", "attention-rope"), 4, 6)
    assert named("attention", vocabulary=4, width=6, longest_context=9).layers == ("attention",)


# What is refused


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"layers": ()}, "at least one mixer"),
        ({"layers": ("mambo",)}, "no mixer 'mambo'; did you mean 'mamba'"),
        ({"layers": ("mamba", "atention")}, "no mixer 'atention'; did you mean 'attention'"),
        ({"width": 0}, "width must be at least 1, got 0"),
        ({"vocabulary": 1}, "vocabulary must be at least 2, got 1"),
        ({"layers": ("attention-rope",), "width": 7}, "a head's width must be even, got 7"),
        ({"layers": "mamba"}, "layers: should be a valid"),
        ({"layers": (3,)}, "layers"),
        ({"norm": "batch"}, "norm: should be 'layer' or 'rms', got 'batch'"),
        ({"mlp_expand": 0}, "mlp_expand must be at least 1, got 0"),
        ({"mlp_expand": 2}, "mlp_expand is of an MLP, and mlp is none; got 2"),
        ({"positions": "learned"}, "learned positions need max_length"),
        ({"max_length": 9}, "nothing else takes it"),
    ],
)
def test_impossible_specs_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        ModelSpec(**{"layers": ("mamba",), **fields})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("transformer-rop", "no model 'transformer-rop'; did you mean 'transformer-rope'"),
        ("Hybrid-A", "no model 'Hybrid-A'; did you mean 'hybrid-a'"),
        ("mamba,atention", "no mixer 'atention'; did you mean 'attention'"),
        ("mamba,", "'mamba,' is not a list of mixers"),
        ("mamba(state=32", "is not a list of mixers"),
        ("mamba(stat=32)", "mamba: no option 'stat'; did you mean 'state'"),
        ("mamba(state)", "'state' is not an option and its one value"),
        ("mamba(state=2, state=4)", "the option state is given twice"),
        ("mamba(state=0)", "mamba: state must be at least 1, got 0"),
        ("mamba(state=few)", "mamba: state: should be a valid integer, got 'few'"),
        ("mamba; nrom=rms", "no setting of a model 'nrom'; did you mean 'norm'"),
        ("mamba; norm", "norm needs a value"),
        ("mamba; norm=batch", "norm: should be 'layer' or 'rms', got 'batch'"),
    ],
)
def test_an_unknown_model_is_answered_with_the_nearest_name(name, message):
    with pytest.raises(ValueError, match=message):
        named(name, vocabulary=16, width=8, longest_context=64)


def test_a_name_near_to_nothing_is_answered_with_all_names():
    message = unknown("mixer", "qqq", ["mamba", "attention"])
    assert message == "no mixer 'qqq'. There are: mamba, attention"
    assert "There are: mamba, attention" in unknown("mixer", "mambo", ["mamba", "attention"])


# Learned positions


LEARNED = ModelSpec(("attention", "attention"), positions="learned", max_length=9)


def test_learned_positions_refuse_what_they_do_not_reach():
    model = fresh(LEARNED)
    assert model(some_tokens(2, 9)).isfinite().all()
    with pytest.raises(ValueError, match="positions reach 9 tokens, got a sequence of 10"):
        model(some_tokens(2, 10))


def test_rows_behind_the_sequence_change_nothing():
    model, tokens = fresh(LEARNED), some_tokens(2, 5)
    before = model(tokens)
    with torch.no_grad():
        model.positions.weight[5:] = 100.0
    assert torch.equal(model(tokens), before)


@pytest.mark.parametrize("row", range(5))
def test_each_row_before_the_end_of_the_sequence_changes_the_logits(row):
    model, tokens = fresh(LEARNED), some_tokens(2, 5)
    before = model(tokens)
    with torch.no_grad():
        model.positions.weight[row] *= -3
    assert not torch.allclose(model(tokens), before)


def test_training_leaves_rows_behind_its_sequences_as_they_were():
    model = fresh(LEARNED)
    before = model.positions.weight.detach().clone()
    for _ in steps(model, AssociativeRecall(), Schedule(rate=0.1, steps=3, context=5), seed=0):
        pass
    after = model.positions.weight.detach()

    assert torch.equal(after[6:], before[6:])
    assert (after[:6] != before[:6]).any(dim=1).all()


def test_positions_start_about_as_long_as_tokens():
    spec = ModelSpec(("attention",), width=64, positions="learned", max_length=193)
    assert fresh(spec).positions.weight.norm(dim=1).mean().item() == pytest.approx(1, abs=0.05)


# The function


def plainly(model: SequenceModel, tokens: torch.Tensor) -> torch.Tensor:
    """Every layer in full; the last position is taken at the very end."""
    x = model.embedding.weight[tokens]
    if model.positions is not None:
        x = x + model.positions.weight[torch.arange(tokens.shape[1])]
    for block in model.layers:
        x = x + block.mixer(block.norm(x))
    return model.lm_head(model.norm_f(x))[:, -1]


@pytest.mark.parametrize("length", [1, 2, 17, 65])
def test_logits_are_those_of_the_whole_stack_at_the_last_position(model, length):
    tokens = some_tokens(3, length)
    torch.testing.assert_close(model(tokens), plainly(model, tokens))


def test_gradients_are_those_of_the_whole_stack_at_the_last_position(model):
    tokens = some_tokens(3, 17)
    weights = {name: p for name, p in model.named_parameters() if p.requires_grad}

    def gradients(logits: torch.Tensor) -> dict[str, torch.Tensor]:
        loss = logits.square().sum()
        return dict(zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True))

    torch.testing.assert_close(
        gradients(model(tokens)), gradients(plainly(model, tokens)), rtol=1e-4, atol=1e-5
    )


def test_a_blocks_last_is_the_last_position_of_its_forward(model):
    x = torch.randn(2, 11, 8, generator=torch.Generator().manual_seed(0))
    for block in model.layers:
        torch.testing.assert_close(block(x, last=True), block(x)[:, -1:])
        torch.testing.assert_close(block(x), x + block.mixer(block.norm(x)))


def test_the_answer_depends_on_every_token_of_its_own_sequence_and_of_no_other(model):
    seen = []

    def keep(module, arguments, rows):
        seen.append(rows.detach().requires_grad_())
        return seen[-1]

    model.embedding.register_forward_hook(keep)
    logits = model(some_tokens(2, 30))
    weight = torch.randn(16, generator=torch.Generator().manual_seed(0))
    (influence,) = torch.autograd.grad((logits[0] * weight).sum(), seen)

    assert (influence[0].abs().sum(dim=1) > 0).all()
    assert (influence[1] == 0).all()


@pytest.mark.parametrize("length", [1, 2, 9, 64, 65])
def test_no_model_needs_a_length_other_than_learned_positions(model, length):
    assert model(some_tokens(2, length)).isfinite().all()
    if model.positions is None:
        assert model(some_tokens(2, 3 * length + 1)).isfinite().all()


# Numbers


def test_mambas_parameters_are_as_many_as_a_count_by_hand():
    inner, rank, state, window = 16, 1, 16, 4
    mixer = 8 * 2 * inner  # in_proj
    mixer += inner * window + inner  # conv1d
    mixer += inner * (rank + 2 * state)  # x_proj
    mixer += rank * inner + inner  # dt_proj
    mixer += inner * state + inner  # A_log and D
    mixer += inner * 8  # out_proj
    assert mixer == 1296

    trained = 2 * (mixer + 2 * 8) + 2 * 8 + 8 * 16  # norms before the mixers and after; lm_head
    assert fresh(SIX["mamba"]).trained_parameters() == trained == 2768


def test_attentions_parameters_are_as_many_as_a_count_by_hand():
    trained = 2 * (4 * 8 * 8 + 2 * 8) + 2 * 8 + 8 * 16
    assert fresh(SIX["transformer-nope"]).trained_parameters() == trained
    assert fresh(SIX["transformer-rope"]).trained_parameters() == trained
    assert fresh(SIX["transformer-learned"]).trained_parameters() == trained + 65 * 8


def test_the_state_is_that_of_all_layers():
    mamba = 16 * 16 + 16 * 3  # the scan's state and the convolution's last inputs
    for context in (1, 64, 192):
        attention = 2 * context * 8  # a key and a value for each token
        assert fresh(SIX["mamba"]).state_size(context) == 2 * mamba
        assert fresh(SIX["hybrid-a"]).state_size(context) == mamba + attention
        assert fresh(SIX["hybrid-b"]).state_size(context) == 2 * mamba + attention
        assert fresh(SIX["transformer-rope"]).state_size(context) == 2 * attention


def test_weights_have_the_names_and_shapes_of_the_official_mamba():
    weights = {name: tuple(w.shape) for name, w in fresh(SIX["mamba"]).state_dict().items()}
    mixer = {
        "in_proj.weight": (32, 8),
        "conv1d.weight": (16, 1, 4),
        "conv1d.bias": (16,),
        "x_proj.weight": (33, 16),
        "dt_proj.weight": (16, 1),
        "dt_proj.bias": (16,),
        "A_log": (16, 16),
        "D": (16,),
        "out_proj.weight": (8, 16),
    }
    for layer in (0, 1):
        prefix = f"layers.{layer}.mixer."
        found = {n.removeprefix(prefix): s for n, s in weights.items() if n.startswith(prefix)}
        assert found == mixer
        assert weights[f"layers.{layer}.norm.weight"] == (8,)
    assert weights["norm_f.weight"] == (8,)
    assert weights["lm_head.weight"] == (16, 8)
    assert weights["embedding.weight"] == (16, 8)


# Long sequences


@pytest.mark.parametrize("part", [1, 3, 8, 64, 1000])
@pytest.mark.parametrize("positions", ["none", "learned"])
def test_a_sequence_in_parts_gives_the_logits_of_the_whole(part, positions):
    reach = {"none": None, "learned": 200}[positions]
    model = fresh(ModelSpec(("mamba", "mamba", "mamba"), 16, 8, positions, reach)).double()
    tokens = some_tokens(2, 130)
    torch.testing.assert_close(
        logits_by_pieces(model, tokens, part), model(tokens).detach(), rtol=0, atol=1e-12
    )


def test_in_float32_parts_change_no_more_than_rounding():
    model = fresh(SIX["mamba"])
    tokens = some_tokens(2, 300)
    torch.testing.assert_close(
        logits_by_pieces(model, tokens, 64), model(tokens).detach(), rtol=0, atol=1e-5
    )


def test_attention_keeps_every_token_so_nothing_is_gained_by_parts():
    assert [name for name in SIX if continues(fresh(SIX[name]))] == ["mamba"]


def test_long_sequences_are_worked_through_in_parts_where_no_gradient_is_wanted(monkeypatch):
    model, tokens = fresh(SIX["mamba"]), some_tokens(1, AT_ONCE + 1)
    lengths = []
    monkeypatch.setattr(
        MambaMixer,
        "continued",
        lambda self, x, state: (lengths.append(x.shape[1]), continued(self, x, state))[1],
    )
    in_parts = Compiled(model).logits(tokens)
    assert lengths == [AT_ONCE, AT_ONCE, 1, 1]
    whole = model(tokens)
    assert lengths == [AT_ONCE, AT_ONCE, 1, 1]
    torch.testing.assert_close(in_parts, whole.detach(), rtol=0, atol=1e-4)
