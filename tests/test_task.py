"""Associative recall is what the assignment says: step by step, and as a distribution.

The statistical tests have fixed seeds, so they never fail by chance: with these seeds they
pass, and what they would accept by mistake is said by ALPHA and the number of samples.
"""

import itertools
from collections import Counter
from dataclasses import replace
from operator import itemgetter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from recall_arena.evaluation import held_out
from recall_arena.tasks import TASKS, AssociativeRecall, Batch, Task

ALPHA = 1e-4
SEEDS = st.integers(0, 2**32 - 1)
EXTRAS = st.integers(0, 60)


@st.composite
def tasks(draw):
    vocabulary = draw(st.integers(2, 40))
    queries = draw(st.integers(1, vocabulary))
    delay = draw(st.integers(1, 12))
    distance = draw(st.none() | st.integers(delay + 1, 80))
    return AssociativeRecall(vocabulary, queries, delay, distance, draw(st.booleans()))


def sample(task, batch, context, seed) -> Batch:
    return task.sample(batch, context, torch.Generator().manual_seed(seed))


# Every sequence


@given(tasks(), EXTRAS, SEEDS)
def test_looking_up_the_query_gives_the_answer(task, extra, seed):
    """A solver that only looks things up is always right: the task is what it says."""
    batch = sample(task, 32, task.shortest_context + extra, seed)
    body, query = batch.tokens[:, :-1], batch.tokens[:, -1:]

    assert (body == query).any(dim=1).all()
    first = (body == query).int().argmax(dim=1, keepdim=True)
    assert torch.equal(body.gather(1, first + task.delay).squeeze(1), batch.answers)


@given(tasks(), EXTRAS, SEEDS, st.integers(0, 9))
def test_a_batch_holds_context_and_query_as_integers(task, extra, seed, size):
    context = task.shortest_context + extra
    batch = sample(task, size, context, seed)

    assert batch.tokens.shape == (size, context + 1)
    assert batch.answers.shape == (size,)
    assert batch.tokens.dtype == batch.answers.dtype == torch.int64


@given(tasks(), EXTRAS, SEEDS)
def test_tokens_are_from_the_vocabulary_and_the_last_is_one_of_the_queries(task, extra, seed):
    batch = sample(task, 32, task.shortest_context + extra, seed)

    assert 0 <= batch.tokens.min() <= batch.tokens.max() < task.vocabulary
    assert batch.tokens[:, -1].max() < task.queries


@given(tasks(), EXTRAS, SEEDS)
def test_the_query_appears_twice_and_once_more_where_it_is_its_own_value(task, extra, seed):
    batch = sample(task, 32, task.shortest_context + extra, seed)
    query = batch.tokens[:, -1:]

    appearances = (batch.tokens == query).sum(dim=1)
    assert torch.equal(appearances, 2 + (batch.answers == query.squeeze(1)).int())


@given(tasks(), SEEDS)
def test_the_shortest_context_starts_with_the_query_and_ends_with_the_value(task, seed):
    assert task.shortest_context == task.delay + 1
    batch = sample(task, 32, task.delay + 1, seed)

    assert torch.equal(batch.tokens[:, 0], batch.tokens[:, -1])
    assert torch.equal(batch.tokens[:, task.delay], batch.answers)


@given(tasks(), EXTRAS, SEEDS)
def test_the_same_state_of_the_generator_gives_the_same_batch(task, extra, seed):
    context = task.shortest_context + extra
    one, other = sample(task, 8, context, seed), sample(task, 8, context, seed)

    assert torch.equal(one.tokens, other.tokens)
    assert torch.equal(one.answers, other.answers)


def test_a_generator_goes_on_to_other_batches():
    rng = torch.Generator().manual_seed(0)
    one, other = (AssociativeRecall().sample(4, 64, rng) for _ in range(2))
    assert not torch.equal(one.tokens, other.tokens)


def test_sampling_neither_reads_nor_moves_the_global_generator():
    task = AssociativeRecall(queries=16)
    before = torch.get_rng_state()
    one = sample(task, 8, 16, seed=3)
    assert torch.equal(torch.get_rng_state(), before)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(123)
        assert torch.equal(sample(task, 8, 16, seed=3).tokens, one.tokens)


def test_the_first_batch_of_seed_0_is_this_one():
    """These numbers may change when `sample` draws in another order, or with PyTorch's generator.

    Every record's outcome changes with them: raise `runs.REVISION`, and say so in the changelog.
    """
    batch = sample(AssociativeRecall(vocabulary=16, queries=4, delay=2), 3, context=8, seed=0)

    assert batch.tokens.tolist() == [
        [4, 0, 12, 0, 10, 14, 12, 7, 0],
        [4, 3, 4, 3, 15, 12, 15, 15, 3],
        [12, 1, 15, 11, 0, 2, 13, 9, 1],
    ]
    assert batch.answers.tolist() == [0, 3, 11]


def test_the_held_out_sequences_are_these_and_a_new_field_moves_none():
    """They are seeded by the task's `repr`; every record's counts change with them."""
    task = AssociativeRecall(queries=4)
    assert repr(task) == "AssociativeRecall(vocabulary=16, queries=4, delay=1)"
    assert held_out(task, 8, 2, "test").tokens.tolist() == [
        [0, 6, 1, 14, 4, 1, 6, 8, 0],
        [10, 9, 10, 1, 2, 8, 7, 2, 1],
    ]
    assert "distance=5" in repr(replace(task, distance=5))
    assert "repeats=False" in repr(replace(task, repeats=False))


# What is refused


@pytest.mark.parametrize("delay", [1, 5])
@pytest.mark.parametrize("missing", [1, 2])
def test_a_context_without_room_for_query_and_value_is_refused(delay, missing):
    context = delay + 1 - missing
    with pytest.raises(
        ValueError, match=rf"context must be at least .*\b{delay + 1}, got {context}$"
    ):
        sample(AssociativeRecall(delay=delay), 1, context, seed=0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"vocabulary": 1}, "vocabulary must be at least 2, got 1"),
        ({"vocabulary": -3}, "vocabulary must be at least 2, got -3"),
        ({"queries": 0}, r"queries must be in 1\.\.16, got 0"),
        ({"queries": 17}, r"queries must be in 1\.\.16, got 17"),
        ({"vocabulary": 4, "queries": 5}, r"queries must be in 1\.\.4, got 5"),
        ({"delay": 0}, "delay must be at least 1, got 0"),
        ({"delay": -1}, "delay must be at least 1, got -1"),
        ({"delay": 4, "distance": 4}, r"distance must be at least delay \+ 1 = 5, got 4"),
    ],
)
def test_impossible_tasks_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        AssociativeRecall(**fields)


def test_a_negative_batch_is_refused():
    with pytest.raises(ValueError, match="batch must not be negative, got -1"):
        sample(AssociativeRecall(), -1, 8, seed=0)


def test_tasks_are_listed_by_name_and_are_values():
    assert TASKS["associative-recall"] is AssociativeRecall
    for kind in TASKS.values():
        assert isinstance(kind(), Task)
        assert kind() == kind()
        assert len({kind(), kind()}) == 1


# The distribution, exactly: small enough to list everything that the recipe can give


def every_outcome(vocabulary, queries, length, delay) -> Counter:
    """The assignment's steps 1 to 6 once for each way they can go; all ways are equally likely."""
    ways = Counter()
    for q, v, i in itertools.product(
        range(1, queries + 1), range(1, vocabulary + 1), range(1, length - delay + 1)
    ):
        others = [token for token in range(1, vocabulary + 1) if token != q]
        free = [place for place in range(1, length + 1) if place not in (i, i + delay)]
        for fill in itertools.product(others, repeat=len(free)):
            sequence = dict(zip(free, fill, strict=True)) | {i: q, i + delay: v}
            sequence[length + 1] = q
            ways[tuple(sequence[place] for place in range(1, length + 2)), v] += 1
    return ways


@pytest.mark.parametrize(
    ("vocabulary", "queries", "length", "delay"),
    [
        (3, 2, 4, 2),
        (3, 3, 4, 1),
        (4, 1, 3, 1),
        (2, 2, 5, 3),
        (4, 3, 4, 2),
        (5, 5, 2, 1),
        (3, 1, 5, 2),
    ],
)
def test_every_sequence_is_as_frequent_as_the_recipe_makes_it(vocabulary, queries, length, delay):
    n = 60_000
    ways = every_outcome(vocabulary, queries, length, delay)
    batch = sample(AssociativeRecall(vocabulary, queries, delay), n, length, seed=0)
    rows = (batch.tokens + 1).tolist()  # the assignment counts tokens from 1
    answers = (batch.answers + 1).tolist()
    seen = Counter((tuple(row), answer) for row, answer in zip(rows, answers, strict=True))

    assert seen.keys() <= ways.keys()
    expected = np.array(list(ways.values())) * (n / ways.total())
    assert expected.min() > 5
    assert stats.chisquare([seen[way] for way in ways], expected).pvalue > ALPHA


# The distribution, part by part, at a size with room before, between and after


K, M, L, TAU = 5, 3, 9, 3
N = 100_000


@pytest.fixture(scope="module")
def drawn():
    """body (N, L), query, value and first (N,), as numpy arrays."""
    batch = sample(AssociativeRecall(K, M, TAU), N, L, seed=1)
    tokens = batch.tokens.numpy()
    body, query = tokens[:, :-1], tokens[:, -1]
    return body, query, batch.answers.numpy(), (body == query[:, None]).argmax(axis=1)


def table(*columns) -> np.ndarray:
    """How often each combination of values occurs."""
    counts = np.zeros([column.max() + 1 for column in columns], dtype=int)
    np.add.at(counts, columns, 1)
    return counts


def assert_uniform(tables) -> None:
    """None of the histograms is unlikely to be uniform (Bonferroni over all of them)."""
    tables = list(tables)
    assert min(stats.chisquare(table).pvalue for table in tables) * len(tables) > ALPHA


def assert_independent(pairs) -> None:
    """None of the pairs of columns is unlikely to be independent (Bonferroni over all of them)."""
    pairs = list(pairs)
    least = min(stats.chi2_contingency(table(*pair)).pvalue for pair in pairs)
    assert least * len(pairs) > ALPHA


def rank(token, query):
    """Where a token other than the query stands, in 0..K-2, counting on from the query."""
    return (token - query - 1) % K


def test_queries_are_uniform_over_the_first_tokens(drawn):
    _, query, _, _ = drawn
    assert set(query) == set(range(M))
    assert_uniform([table(query)])


def test_values_are_uniform_over_all_tokens_whatever_the_query(drawn):
    _, query, value, _ = drawn
    assert set(value) == set(range(K))
    assert_uniform(table(query, value))
    assert_independent([(query, value)])


def test_the_query_first_stands_anywhere_with_room_for_its_value(drawn):
    _, query, value, first = drawn
    assert set(first) == set(range(L - TAU))
    assert_uniform([table(first)])
    assert_independent([(first, query), (first, value)])


@pytest.mark.parametrize("distance", [TAU + 1, 7, L, L + 20])
def test_within_a_distance_the_query_first_stands_anywhere_that_near_the_end(distance):
    batch = sample(AssociativeRecall(K, M, TAU, distance), N, L, seed=2)
    body, query = batch.tokens[:, :-1], batch.tokens[:, -1:]
    away = L - (body == query).int().argmax(dim=1).numpy()
    farthest = min(distance, L)
    assert set(away) == set(range(TAU + 1, farthest + 1))
    if farthest > TAU + 1:
        assert_uniform([table(away)[TAU + 1 :]])
    else:  # one place: everything else is drawn as ever
        assert (body[:, -1] == batch.answers).all()


def test_a_value_is_its_query_one_time_in_k_or_never():
    """In the latter case it is uniform over the other tokens, whatever the query."""
    for repeats in (True, False):
        batch = sample(AssociativeRecall(K, M, TAU, repeats=repeats), N, L, seed=3)
        after = (batch.answers - batch.tokens[:, -1]).remainder(K).numpy()
        counts = np.bincount(after, minlength=K)
        assert_uniform([counts if repeats else counts[1:]])
        assert (counts[0] > 0) == repeats


@given(tasks(), EXTRAS, SEEDS)
def test_a_distance_of_the_whole_context_is_none_at_all(task, extra, seed):
    context = task.shortest_context + extra
    batches = [
        sample(replace(task, distance=distance), 8, context, seed).tokens
        for distance in (None, context, context + 5)
    ]
    assert all(torch.equal(batches[0], other) for other in batches[1:])


@pytest.mark.parametrize("kind", ["before", "between", "after"])
def test_filler_is_uniform_over_all_tokens_but_the_query(drawn, kind):
    body, query, value, first = drawn
    tables, pairs = [], []
    for start, place in itertools.product(range(L - TAU), range(L)):
        here = {
            "before": place < start,
            "between": start < place < start + TAU,
            "after": place > start + TAU,
        }
        if here[kind]:
            rows = first == start
            token, q, v = body[rows, place], query[rows], value[rows]
            assert (token != q).all()
            for each in range(M):
                histogram = np.bincount(token[q == each], minlength=K)
                tables.append(np.delete(histogram, each))
            pairs.append((rank(token, q), v))
    assert tables
    assert_uniform(tables)
    assert_independent(pairs)


def test_filler_at_one_place_says_nothing_about_filler_at_another(drawn):
    body, query, _, first = drawn
    ranks = rank(body, query[:, None])
    pairs = []
    for start in range(L - TAU):
        rows = ranks[first == start]
        free = [place for place in range(L) if place not in (start, start + TAU)]
        pairs += [(rows[:, p], rows[:, r]) for p, r in itertools.combinations(free, 2)]
    assert_independent(pairs)


def test_sequences_of_a_batch_are_independent(drawn):
    body, query, value, first = drawn
    columns = (query, value, first, body[:, 0], body[:, -1])
    assert_independent((column[:-1], column[1:]) for column in columns)


# The distribution, beside a transcription of the recipe, at the assignment's size


def recipe(rng, vocabulary, queries, length, delay) -> tuple[list[int], int]:
    """One sequence by the assignment's steps, counting tokens and places from 1."""
    q = int(rng.integers(1, queries + 1))  # step 2
    v = int(rng.integers(1, vocabulary + 1))
    i = int(rng.integers(1, length - delay + 1))  # step 3
    sequence = [0] * (length + 1)
    sequence[length] = q
    for place in range(1, length + 1):  # step 5, and over it steps 3 and 4
        sequence[place - 1] = int(rng.choice([t for t in range(1, vocabulary + 1) if t != q]))
    sequence[i - 1] = q
    sequence[i + delay - 1] = v
    return sequence, v  # step 6


def summary(sequence, answer) -> tuple[bool, int, int, int]:
    """Whether the value repeats the query; where the query stands; how often value and 1 occur."""
    *body, query = sequence
    where = 4 * body.index(query) // len(body)
    return answer == query, where, min(body.count(answer) // 2, 3), min(body.count(1) // 2, 3)


@pytest.mark.parametrize(("queries", "delay"), [(1, 1), (4, 5), (16, 10)])
def test_sequences_are_like_those_of_a_transcribed_recipe(queries, delay):
    n, context = 1500, 64
    rng = np.random.default_rng(0)
    theirs = [summary(*recipe(rng, 16, queries, context, delay)) for _ in range(n)]
    batch = sample(AssociativeRecall(16, queries, delay), n, context, seed=0)
    ours = [
        summary(row, answer)
        for row, answer in zip(
            (batch.tokens + 1).tolist(), (batch.answers + 1).tolist(), strict=True
        )
    ]

    for parts in [(0, 1), (2,), (3,)]:
        one, other = (Counter(itemgetter(*parts)(each) for each in side) for side in (ours, theirs))
        values = sorted(one | other)
        counts = [[side[value] for value in values] for side in (one, other)]
        assert stats.chi2_contingency(counts).pvalue > ALPHA
