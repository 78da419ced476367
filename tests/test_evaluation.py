"""Evaluation counts what it says, on sequences that depend on the task and the length alone."""

import itertools
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn
from torch.nn import functional as F
from training_checks import steps

from recall_arena import evaluation
from recall_arena.compiled import Compiled
from recall_arena.evaluation import (
    Contexts,
    Counts,
    accuracy,
    accuracy_by_context,
    held_out,
    held_out_chunks,
)
from recall_arena.model import ModelSpec, SequenceModel
from recall_arena.seeds import generator
from recall_arena.tasks import AssociativeRecall
from recall_arena.training import Schedule

TASK = AssociativeRecall(queries=4, delay=3)


class Lookup(nn.Module):
    """Always right: the token `delay` after the first appearance of the query."""

    def __init__(self, task: AssociativeRecall) -> None:
        super().__init__()
        self.task = task

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        first = (tokens == tokens[:, -1:]).int().argmax(dim=1, keepdim=True)
        value = tokens.gather(1, first + self.task.delay).squeeze(1)
        return F.one_hot(value, self.task.vocabulary).float()


class Always(nn.Module):
    """Answers one token, whatever is asked."""

    def __init__(self, token: int) -> None:
        super().__init__()
        self.token = token

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return F.one_hot(torch.full((len(tokens),), self.token), 16).float()


class Echo(nn.Module):
    """Answers the query, which is right where the value repeats it and nowhere else."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return F.one_hot(tokens[:, -1], 16).float()


def untrained() -> SequenceModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SequenceModel(ModelSpec(("mamba", "attention")))


# The sequences


def test_held_out_sequences_are_always_the_same():
    before = torch.get_rng_state()
    one = held_out(TASK, 20, 50, "test")
    assert torch.equal(torch.get_rng_state(), before)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        list(steps(untrained(), TASK, Schedule(rate=0.1, steps=2, context=8), seed=3))
        same = AssociativeRecall(vocabulary=16, queries=4, delay=3)
        other = held_out(same, 20, 50, "test")
    assert torch.equal(one.tokens, other.tokens)
    assert torch.equal(one.answers, other.answers)


def test_held_out_sequences_have_the_task_the_length_and_the_number_asked_for():
    batch = held_out(TASK, 20, 50, "validation")
    assert batch.tokens.shape == (50, 21)
    assert accuracy(Lookup(TASK), batch).correct == 50


def test_tests_validation_and_training_share_no_sequence():
    """Of 16^20 sequences, none is met twice; where it is, a stream is shared."""
    batches = [held_out(TASK, 20, 500, purpose) for purpose in ("test", "validation")]
    batches += [
        TASK.sample(64, 20, generator("train", seed, step)) for seed in (0, 1) for step in range(20)
    ]
    rows = [tuple(row) for batch in batches for row in batch.tokens.tolist()]
    assert len(set(rows)) == len(rows)


@pytest.mark.parametrize("other", [AssociativeRecall(queries=4), AssociativeRecall(8, 4, 3)])
def test_another_task_is_tested_on_other_sequences(other):
    one, two = (held_out(task, 20, 50, "test") for task in (TASK, other))
    assert not torch.equal(one.answers % 8, two.answers % 8)  # not even drawn alike


# The counts


def test_a_perfect_solver_is_right_at_every_length():
    contexts = Contexts(last=192, stride=9, sequences=200)
    rows = dict(accuracy_by_context(Lookup(TASK), TASK, contexts))

    assert min(rows) == TASK.delay + 1
    for counts in rows.values():
        assert counts.correct == counts.total == 200
        assert counts.correct_by_query == counts.total_by_query
        assert counts.correct_repeats == counts.total_repeats
        assert counts.accuracy == 1


@pytest.mark.parametrize("token", [0, 9])
def test_one_answer_to_everything_is_right_once_in_the_vocabulary(token):
    counts = accuracy(Always(token), held_out(TASK, 20, 4000, "test"))
    assert stats.binomtest(counts.correct, counts.total, 1 / 16).pvalue > 1e-4
    assert counts.accuracy == counts.correct / 4000


def test_repeats_are_the_sequences_whose_value_is_the_query():
    counts = accuracy(Echo(), held_out(TASK, 20, 4000, "test"))
    assert counts.correct == counts.correct_repeats == counts.total_repeats
    assert stats.binomtest(counts.total_repeats, counts.total, 1 / 16).pvalue > 1e-4

    wrong = accuracy(Always(9), held_out(TASK, 20, 4000, "test"))
    assert wrong.total_repeats == counts.total_repeats
    assert wrong.correct_repeats == 0  # 9 is no query, so it never repeats one


@pytest.mark.parametrize("solver", [untrained(), Always(2), Echo()])
def test_counts_are_those_of_counting_one_by_one(solver):
    batch = held_out(TASK, 12, 300, "test")
    counts = accuracy(solver, batch)
    by_query, right_by_query = [0] * 4, [0] * 4
    correct = repeats = right_repeats = 0
    for tokens, answer in zip(batch.tokens, batch.answers.tolist(), strict=True):
        with torch.no_grad():
            right = solver(tokens[None])[0].argmax().item() == answer
        query = int(tokens[-1])
        correct += right
        by_query[query] += 1
        right_by_query[query] += right
        repeats += query == answer
        right_repeats += right and query == answer

    assert counts == Counts(300, correct, by_query, right_by_query, repeats, right_repeats)
    assert 0 < counts.correct < counts.total


def test_queries_are_counted_apart_and_sum_up():
    batch = held_out(AssociativeRecall(queries=16), 20, 800, "test")
    counts = accuracy(untrained(), batch)
    assert len(counts.total_by_query) == len(counts.correct_by_query) == 16
    assert sum(counts.total_by_query) == counts.total == 800
    assert sum(counts.correct_by_query) == counts.correct
    assert all(
        0 <= right <= total
        for right, total in zip(counts.correct_by_query, counts.total_by_query, strict=True)
    )


class OnlyZero(Lookup):
    """Right where the query is 0, and wrong elsewhere."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        wrong = tokens[:, -1:] != 0
        right = super().forward(tokens)
        return torch.where(wrong, right.roll(1, dims=1), right)


def test_a_query_never_answered_rightly_still_has_its_column():
    task = AssociativeRecall(queries=16)
    counts = accuracy(OnlyZero(task), held_out(task, 20, 800, "test"))
    assert counts.correct_by_query == [counts.total_by_query[0]] + [0] * 15
    assert counts.correct == counts.total_by_query[0] > 0


@pytest.mark.parametrize("at_once", [1, 13, 100, 1 << 30])
def test_counts_do_not_depend_on_how_many_sequences_are_taken_at_once(monkeypatch, at_once):
    model, batch = untrained(), held_out(TASK, 12, 100, "test")
    counts = accuracy(model, batch)
    monkeypatch.setattr(evaluation, "TOKENS_AT_ONCE", at_once)
    assert accuracy(model, batch) == counts


def test_long_batches_go_through_the_model_in_pieces():
    model, sizes = Lookup(TASK), []
    model.register_forward_pre_hook(lambda module, arguments: sizes.append(arguments[0].shape))
    batch = held_out(TASK, 192, 1000, "test")

    assert accuracy(model, batch).correct == 1000
    assert sum(rows for rows, _ in sizes) == 1000
    assert max(rows * length for rows, length in sizes) <= evaluation.TOKENS_AT_ONCE


def test_evaluation_takes_no_gradients_and_leaves_weights_alone_and_the_model_in_evaluation_mode():
    model = untrained().train()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    gradients = []
    model.register_forward_pre_hook(lambda *_: gradients.append(torch.is_grad_enabled()))
    accuracy(Compiled(model).logits, held_out(TASK, 12, 10, "test"))

    assert gradients == [False]
    assert not any(module.training for module in model.modules())
    assert all(weight.grad is None for weight in model.parameters())
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)


# The lengths


@given(st.integers(1, 9), st.none() | st.integers(10, 20), st.integers(15, 60), st.integers(1, 20))
def test_contexts_go_from_the_first_to_the_last_in_strides(delay, first, last, stride):
    lengths = Contexts(first=first, last=last, stride=stride).lengths(
        AssociativeRecall(delay=delay)
    )
    begin = delay + 1 if first is None else first
    assert list(lengths) == [n for n in range(last + 1) if n >= begin and (n - begin) % stride == 0]


def test_by_default_every_length_from_the_shortest_to_three_times_64_is_tested():
    assert Contexts().lengths(TASK) == range(4, 193)
    assert Contexts().sequences >= 1000


@settings(max_examples=10)
@given(st.integers(1, 4), st.integers(1, 3))
def test_every_length_is_yielded_with_the_counts_of_its_own_sequences(delay, stride):
    task, model = AssociativeRecall(queries=4, delay=delay), untrained()
    contexts = Contexts(last=12, stride=stride, sequences=20)
    rows = list(accuracy_by_context(model, task, contexts))

    assert [length for length, _ in rows] == list(range(delay + 1, 13, stride))
    for length, counts in rows:
        assert counts == accuracy(model, held_out(task, length, 20, "test"))


def test_a_length_is_worked_on_only_when_it_is_asked_for():
    model, lengths = Lookup(TASK), []
    model.register_forward_pre_hook(lambda module, arguments: lengths.append(arguments[0].shape[1]))
    rows = accuracy_by_context(model, TASK, Contexts(last=100, sequences=5))
    list(itertools.islice(rows, 2))
    assert lengths == [5, 6]


def test_listed_lengths_are_those_that_are_tested():
    contexts = Contexts(at=(4, 9, 40), sequences=20)
    rows = list(accuracy_by_context(Lookup(TASK), TASK, contexts))
    assert [length for length, _ in rows] == [4, 9, 40]
    assert contexts.longest == 40
    assert Contexts().longest == 192


# Test sets that would not fit into memory


def test_up_to_four_million_tokens_the_test_set_is_drawn_at_once():
    (batch,) = held_out_chunks(TASK, 192, 1000)
    assert torch.equal(batch.tokens, held_out(TASK, 192, 1000, "test").tokens)


def test_a_long_test_set_comes_in_chunks_of_bounded_size_that_are_always_the_same(monkeypatch):
    monkeypatch.setattr(evaluation, "TOKENS_DRAWN", 300)
    chunks = list(held_out_chunks(TASK, 50, 20))
    assert [len(chunk.tokens) for chunk in chunks] == [6, 6, 6, 2]
    again = list(held_out_chunks(TASK, 50, 20))
    for one, other in zip(chunks, again, strict=True):
        assert torch.equal(one.tokens, other.tokens)
    assert len({tuple(row) for chunk in chunks for row in chunk.tokens.tolist()}) == 20
    more = list(held_out_chunks(TASK, 50, 30))
    assert all(torch.equal(a.tokens, b.tokens) for a, b in zip(chunks[:3], more, strict=False))
    ((_, counts),) = accuracy_by_context(Lookup(TASK), TASK, Contexts(at=(50,), sequences=20))
    assert counts.correct == counts.total == sum(counts.total_by_query) == 20


def test_a_million_tokens_are_tested_in_bounded_memory():
    """Four sequences of 2^20 tokens a chunk: 32 MiB, whatever the number of sequences."""
    chunks = held_out_chunks(TASK, 1 << 20, 10**6)
    assert next(chunks).tokens.shape == (4, (1 << 20) + 1)


LONG = """
import re
from pathlib import Path
import torch
from recall_arena.compiled import Compiled
from recall_arena.evaluation import Contexts, accuracy_by_context
from recall_arena.model import SequenceModel, named
from recall_arena.tasks import AssociativeRecall

torch.set_num_threads(1)
model = Compiled(SequenceModel(named("mamba")))

def peak(context):
    contexts = Contexts(at=(context,), sequences=4)
    ((length, counts),) = accuracy_by_context(model.logits, AssociativeRecall(), contexts)
    assert (length, counts.total) == (context, 4)
    (kib,) = re.findall(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
    return int(kib) * 1024 / 1e6

print(-peak(1024) + peak(2**20))
"""


@pytest.mark.whole
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells a process's peak")
def test_the_model_too_tests_a_million_tokens_in_bounded_memory():
    """Four sequences of them are 34 MB of tokens, and one layer's channels would be 268 MB."""
    done = subprocess.run([sys.executable, "-c", LONG], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 180


def test_counts_add_up_whatever_the_number_of_queries():
    one, other = Counts(3, 2, [3], [2], 1, 0), Counts(5, 4, [0, 2, 3], [0, 2, 2], 0, 0)
    assert one + other == other + one == Counts(8, 6, [3, 2, 3], [2, 2, 2], 1, 0)
