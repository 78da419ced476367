"""Induction heads: a solver that looks behind the trigger is right, and all else is uniform."""

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from recall_arena.seeds import generator
from recall_arena.tasks import InductionHeads

ALPHA = 1e-4
tasks = st.builds(InductionHeads, st.integers(2, 40), st.sampled_from(["last", "all"]))


@given(tasks, st.integers(2, 70), st.integers(0, 2**32 - 1))
def test_looking_behind_the_trigger_gives_the_answer(task, context, seed):
    batch = task.sample(16, context, torch.Generator().manual_seed(seed))
    body = batch.tokens[:, :-1]

    assert batch.tokens.shape == (16, context + 1)
    assert ((body == 0).sum(dim=1) == 1).all()
    assert (batch.tokens[:, -1] == 0).all()
    first = (body == 0).int().argmax(dim=1, keepdim=True)
    assert torch.equal(body.gather(1, first + 1)[:, 0], batch.answers)
    assert 1 <= batch.answers.min() <= batch.tokens.max() < task.vocabulary


@pytest.mark.parametrize(("vocabulary", "context"), [(3, 2), (3, 4), (4, 3), (2, 6)])
def test_every_sequence_is_as_frequent_as_the_definition_makes_it(vocabulary, context):
    """A place out of context - 1, and at each other place one of vocabulary - 1 tokens."""
    n, ways = 60_000, Counter()
    for place in range(context - 1):
        for others in itertools.product(range(1, vocabulary), repeat=context - 1):
            ways[(*others[:place], 0, *others[place:], 0)] += 1
    batch = InductionHeads(vocabulary).sample(n, context, generator("counted"))
    seen = Counter(map(tuple, batch.tokens.tolist()))

    assert seen.keys() <= ways.keys()
    expected = np.array(list(ways.values())) * (n / ways.total())
    assert stats.chisquare([seen[way] for way in ways], expected).pvalue > ALPHA


def test_at_full_size_place_answer_and_filler_are_uniform():
    batch = InductionHeads().sample(20_000, 64, generator("uniform"))
    places = (batch.tokens == 0).int().argmax(dim=1).bincount(minlength=63)
    assert len(places) == 63
    for counts in (places, batch.answers.bincount()[1:], batch.tokens.flatten().bincount()[1:]):
        assert stats.chisquare(counts.numpy()).pvalue > ALPHA
    assert len(batch.answers.bincount()) == 16


def test_the_loss_on_all_tokens_asks_for_each_next_one_and_tests_ask_for_the_last():
    everywhere, last = InductionHeads(train_on="all"), InductionHeads()
    learnt = everywhere.sample_to_train(5, 9, generator("one"))
    tested = everywhere.sample(5, 9, generator("one"))

    assert torch.equal(learnt.inputs, tested.inputs)
    assert learnt.where.tolist() == [list(range(10))] * 5
    assert torch.equal(learnt.targets[:, :-1], learnt.inputs[:, 1:])
    assert torch.equal(learnt.targets[:, -1], tested.answers)
    same = last.sample_to_train(5, 9, generator("one"))
    assert same.asks_last
    assert torch.equal(same.tokens, learnt.inputs)


def test_the_first_batch_of_seed_0_is_this_one():
    """They may change when `sample` draws in another order, or with PyTorch's generator."""
    batch = InductionHeads().sample(2, 6, torch.Generator().manual_seed(0))
    assert batch.tokens.tolist() == [[9, 1, 14, 10, 0, 14, 0], [8, 4, 12, 12, 0, 10, 0]]
    assert batch.answers.tolist() == [14, 10]


@pytest.mark.parametrize("context", [1, 0, -1])
def test_a_context_without_room_is_refused(context):
    with pytest.raises(ValueError, match=rf"context must be at least 2 .*got {context}$"):
        InductionHeads().sample(1, context, generator("short"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"vocabulary": 1}, "vocabulary must be at least 2, got 1"),
        ({"train_on": "first"}, "train_on: .*'last' or 'all', got 'first'"),
    ],
)
def test_impossible_tasks_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        InductionHeads(**fields)
