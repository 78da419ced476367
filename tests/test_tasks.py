"""What every task promises, asked of each of them and of each of its options."""

import json
from contextlib import suppress
from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from recall_arena.config import as_json, read
from recall_arena.evaluation import held_out, held_out_chunks
from recall_arena.seeds import generator
from recall_arena.tasks import MQAR, TASKS, AssociativeRecall, Batch, InductionHeads, Task

CHANGED: dict[type[Task], list[Task]] = {  # between them, every field
    AssociativeRecall: [
        AssociativeRecall(vocabulary=5, queries=3, delay=4),
        AssociativeRecall(distance=6, repeats=False),
    ],
    InductionHeads: [InductionHeads(vocabulary=5, train_on="all")],
    MQAR: [MQAR(vocabulary=12, pairs=3, power=0.5), MQAR(vocabulary=64, fill="random")],
}
CASES = [each for kind in TASKS.values() for each in (kind(), *CHANGED[kind])]
each_task = pytest.mark.parametrize("task", CASES, ids=repr)
further = st.integers(0, 40)


def drawn(task: Task, context: int, *, train: bool = False, batch: int = 5) -> Batch:
    sample = task.sample_to_train if train else task.sample
    return sample(batch, context, generator("a test", context))


def columns(batch: Batch) -> list[Tensor]:
    return [batch.inputs, batch.targets, batch.where]


@pytest.mark.parametrize("kind", TASKS.values())
def test_between_them_the_cases_change_every_field(kind: type[Task]) -> None:
    usual = kind()
    for field in fields(kind):
        values = {getattr(each, field.name) for each in CHANGED[kind]}
        assert values - {getattr(usual, field.name)}, field.name


@each_task
@pytest.mark.parametrize("train", [False, True])
@given(more=further)
def test_it_asks_within_its_sequences_for_tokens_that_there_are(
    task: Task, train: bool, more: int
) -> None:
    batch = drawn(task, task.shortest_context + more, train=train)
    length, vocabulary = batch.inputs.shape[1], task.vocabulary  # type: ignore[attr-defined]
    assert batch.inputs.shape[0] == batch.where.shape[0] == 5
    assert batch.targets.shape == batch.where.shape
    for tokens in (batch.inputs, batch.targets):
        assert int(tokens.min()) >= 0
        assert int(tokens.max()) < vocabulary
    assert int(batch.where.min()) >= 0
    assert int(batch.where.max()) < length
    asked = batch.where.sort(dim=1).values
    assert (asked.diff(dim=1) > 0).all(), "a position is asked twice"


@each_task
@given(more=further)
def test_a_longer_context_is_as_much_longer_a_sequence(task: Task, more: int) -> None:
    shortest = task.shortest_context
    lengths = [drawn(task, shortest + each).inputs.shape[1] for each in (0, more)]
    assert lengths[1] - lengths[0] == more


@each_task
def test_the_shortest_context_has_an_answer_and_no_shorter_one_has(task: Task) -> None:
    drawn(task, task.shortest_context)
    for context in (task.shortest_context - 1, 0, -1):
        with pytest.raises(ValueError, match="context must be at least"):
            drawn(task, context)


@each_task
@pytest.mark.parametrize("train", [False, True])
def test_equal_generators_draw_equal_bits_and_no_others_are_used(task: Task, train: bool) -> None:
    context = task.shortest_context + 9
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = columns(drawn(task, context, train=train, batch=64))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    again = columns(drawn(task, context, train=train, batch=64))
    assert all(map(torch.equal, first, again))
    other = task.sample(64, context, generator("another test", context))
    assert not torch.equal(first[0], other.inputs)


@each_task
def test_training_and_testing_ask_for_the_same_answers(task: Task) -> None:
    """Training may ask for more."""
    context = task.shortest_context + 9
    tested, trained = (drawn(task, context, train=train) for train in (False, True))
    assert torch.equal(tested.inputs, trained.inputs)
    for row in range(5):
        asked = dict(zip(trained.where[row].tolist(), trained.targets[row].tolist(), strict=True))
        for place, answer in zip(
            tested.where[row].tolist(), tested.targets[row].tolist(), strict=True
        ):
            assert asked[place] == answer


@each_task
def test_a_test_set_is_that_of_its_chunks_in_their_order(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = task.shortest_context + 9
    whole = held_out(task, context, 20, "test")
    assert all(map(torch.equal, columns(whole), columns(next(held_out_chunks(task, context, 20)))))
    monkeypatch.setattr("recall_arena.evaluation.TOKENS_DRAWN", 8 * context)
    chunks = list(held_out_chunks(task, context, 20))
    assert [len(each.inputs) for each in chunks] == [8, 8, 4]
    assert torch.equal(chunks[0].inputs, held_out(task, context, 8, "test").inputs)
    again = task.sample(4, context, generator("test", task, context, 16))
    assert all(map(torch.equal, columns(chunks[2]), columns(again)))


@each_task
def test_it_is_its_fields(task: Task) -> None:
    """Written as JSON and read back it is equal, and draws the same."""
    again = read(type(task), json.loads(json.dumps(as_json(task))))
    assert again == task
    assert hash(again) == hash(task)
    assert repr(again) == repr(task), "held-out sequences are seeded by it"


@each_task
def test_what_grows_in_a_curriculum_begins_with_a_task_and_ends_at_itself(task: Task) -> None:
    """Or it begins below the least that is allowed, which is refused before a step."""
    for field in fields(task):
        ends = task.growing(field.name, 64)
        if ends is not None and type(value := getattr(task, field.name)) is int:
            assert ends[0] <= ends[1] == value
            with suppress(ValueError):
                easiest = replace(task, **{field.name: ends[0]})
                assert len(drawn(easiest, 64).inputs) == 5
