"""MQAR: a solver that looks keys up is always right, and all is drawn as Zoology's text says."""

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor
from torch.nn import functional as F

from recall_arena.compiled import Compiled
from recall_arena.evaluation import accuracy, held_out
from recall_arena.model import ModelSpec, SequenceModel
from recall_arena.seeds import generator
from recall_arena.tasks import MQAR, Batch
from recall_arena.tasks.mqar import distinct

ALPHA = 1e-4


@st.composite
def tasks(draw: st.DrawFn) -> MQAR:
    vocabulary = draw(st.sampled_from([4, 5, 9, 64, 8192]))
    pairs = draw(st.integers(1, min(vocabulary // 2 - 1, 12)))
    power = draw(st.sampled_from([0.01, 0.5, 1.0]))
    return MQAR(vocabulary, pairs, power, draw(st.sampled_from(["zeros", "random"])))


def table_of(task: MQAR, batch: Batch) -> tuple[Tensor, Tensor]:
    """Keys and values (batch, pairs), as they stand at the beginning."""
    table = batch.inputs[:, : 2 * task.pairs]
    return table[:, ::2], table[:, 1::2]


@given(tasks(), st.integers(0, 60), st.integers(0, 2**32 - 1))
def test_looking_a_key_up_gives_its_value(task, extra, seed):
    context = task.shortest_context + extra
    batch = task.sample(8, context, torch.Generator().manual_seed(seed))
    keys, values = table_of(task, batch)
    asked = batch.inputs.gather(1, batch.where)
    found = asked.unsqueeze(2) == keys.unsqueeze(1)

    assert batch.inputs.shape == (8, context)
    assert (found.sum(dim=2) == 1).all()
    assert torch.equal(values.gather(1, found.int().argmax(dim=2)), batch.targets)


@given(tasks(), st.integers(0, 60), st.integers(0, 2**32 - 1))
def test_keys_values_queries_and_filler_stand_where_the_definition_says(task, extra, seed):
    context, half = task.shortest_context + extra, task.vocabulary // 2
    batch = task.sample(8, context, torch.Generator().manual_seed(seed))
    keys, values = table_of(task, batch)
    slots = (batch.where - 2 * task.pairs) / 2

    for chosen, least, below in ((keys, 1, half), (values, half, task.vocabulary)):
        assert least <= chosen.min() <= chosen.max() < below
        assert all(len(set(row)) == task.pairs for row in chosen.tolist())
    assert torch.equal(slots, slots.floor())
    assert 0 <= slots.min() <= slots.max() < (context - 2 * task.pairs) // 2
    assert all(len(set(row)) == task.pairs for row in slots.tolist())
    rest = batch.inputs.scatter(1, batch.where, 0)[:, 2 * task.pairs :]
    assert task.fill == "random" or not rest.any()
    assert 0 <= rest.min() <= rest.max() < task.vocabulary


def assert_alike(seen: Counter, ways: dict[tuple[int, ...], float]) -> None:
    assert seen.keys() <= ways.keys()
    counts, shares = [seen[way] for way in ways], np.array(list(ways.values()))
    assert stats.chisquare(counts, shares / shares.sum() * seen.total()).pvalue > ALPHA


def test_keys_and_values_are_drawn_without_replacement_and_apart():
    """Of 4 keys and 5 values, 12 x 20 ways for two pairs."""
    batch = MQAR(vocabulary=10, pairs=2).sample(60_000, 8, generator("pairs"))
    ways = itertools.product(
        itertools.permutations(range(1, 5), 2), itertools.permutations(range(5, 10), 2)
    )
    flat = {(k1, v1, k2, v2): 1.0 for (k1, k2), (v1, v2) in ways}
    assert len(flat) == 240
    assert_alike(Counter(map(tuple, batch.inputs[:, :4].tolist())), flat)


@pytest.mark.parametrize(("below", "count"), [(1, 1), (4, 1), (4, 4), (5, 3), (6, 2)])
def test_rows_without_replacement_come_in_every_order(below, count):
    rows = distinct(below, (40_000, count), generator("distinct"))
    ways = dict.fromkeys(itertools.permutations(range(below), count), 1.0)
    seen = Counter(map(tuple, rows.tolist()))
    if len(ways) == 1:
        assert seen.keys() == ways.keys()
    else:
        assert_alike(seen, ways)


@pytest.mark.parametrize("power", [0.01, 0.5, 1.0])
@pytest.mark.parametrize(("pairs", "slots"), [(1, 3), (2, 4), (3, 4)])
def test_slots_follow_the_power_law_each_among_those_left(power, pairs, slots):
    """Key i gets the i-th slot drawn."""
    weights = [g ** (power - 1) for g in range(1, slots + 1)]
    ways = {}
    for way in itertools.permutations(range(slots), pairs):
        left, probability = sum(weights), 1.0
        for slot in way:
            probability *= weights[slot] / left
            left -= weights[slot]
        ways[way] = probability
    task = MQAR(pairs=pairs, power=power)
    batch = task.sample(40_000, 2 * pairs + 2 * slots, generator("slots"))
    assert_alike(Counter(map(tuple, ((batch.where - 2 * pairs) // 2).tolist())), ways)


def test_where_keys_come_back_does_not_depend_on_which_they_are():
    batch = MQAR(vocabulary=10, pairs=2).sample(40_000, 12, generator("apart"))
    seen = Counter(zip(batch.inputs[:, 0].tolist(), batch.where[:, 0].tolist(), strict=True))
    keys, places = sorted({k for k, _ in seen}), sorted({p for _, p in seen})
    table = [[seen[key, place] for place in places] for key in keys]
    assert stats.chi2_contingency(table).pvalue > ALPHA


def test_random_filler_is_uniform_over_the_whole_vocabulary():
    task = MQAR(vocabulary=16, pairs=2, fill="random")
    batch = task.sample(5_000, 20, generator("filler"))
    free = torch.ones_like(batch.inputs, dtype=torch.bool).scatter(1, batch.where, False)
    free[:, :4] = False
    assert free.sum() == 5_000 * 14
    assert stats.chisquare(batch.inputs[free].bincount(minlength=16).numpy()).pvalue > ALPHA


def test_the_first_batch_of_seed_0_is_this_one():
    """They may change when `sample` draws in another order, or with PyTorch's generator."""
    batch = MQAR(pairs=2).sample(2, 10, torch.Generator().manual_seed(0))
    assert batch.inputs.tolist() == [
        [3263, 7238, 2199, 6127, 2199, 0, 3263, 0, 0, 0],
        [1316, 7640, 4021, 7510, 1316, 0, 4021, 0, 0, 0],
    ]
    assert batch.targets.tolist() == [[7238, 6127], [7640, 7510]]
    assert batch.where.tolist() == [[6, 4], [4, 6]]


# What it costs


@pytest.mark.parametrize("compiled", [False, True])
def test_only_positions_that_are_asked_are_read_out(compiled):
    torch.manual_seed(0)
    model, shapes = SequenceModel(ModelSpec(("mamba",), vocabulary=8192, width=8)), []
    task = MQAR(pairs=3)
    model.lm_head.register_forward_pre_hook(lambda _, given: shapes.append(given[0].shape))
    logits = Compiled(model).logits if compiled else model
    accuracy(logits, held_out(task, 64, 5, "test"))
    assert shapes == [(5, 3, 8)]


def test_a_solver_is_right_at_every_answer_that_counts():
    task = MQAR(vocabulary=64, pairs=8)

    def lookup(inputs: Tensor, where: Tensor) -> Tensor:
        asked = inputs.gather(1, where).unsqueeze(2)
        place = (inputs[:, None, :16:2] == asked).int().argmax(dim=2)
        return F.one_hot(inputs.gather(1, 2 * place + 1), 64).float()

    counts = accuracy(lookup, held_out(task, 65, 100, "test"))
    assert (counts.total, counts.correct) == (800, 800)
    assert counts.total_by_query == counts.correct_by_query == []


# What is refused


@pytest.mark.parametrize("context", [15, 0])
def test_a_context_without_a_slot_for_each_key_is_refused(context):
    with pytest.raises(ValueError, match=rf"context must be at least 16 .*got {context}$"):
        MQAR(pairs=4).sample(1, context, generator("short"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pairs": 0}, r"pairs must be in 1\.\.4095 with this vocabulary, got 0"),
        ({"vocabulary": 16, "pairs": 8}, r"pairs must be in 1\.\.7 with this vocabulary, got 8"),
        ({"vocabulary": 3, "pairs": 1}, r"pairs must be in 1\.\.0"),
        ({"power": 0.0}, "power must be above 0"),
        ({"power": 1.5}, "power must be above 0 and at most 1, got 1.5"),
        ({"fill": "ones"}, "fill: .*'zeros' or 'random', got 'ones'"),
    ],
)
def test_impossible_tasks_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        MQAR(**fields)
