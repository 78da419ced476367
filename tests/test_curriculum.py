"""Ranges of lengths and curricula: which task and which length each step has."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from training_checks import finish, steps

from recall_arena.compiled import Compiled
from recall_arena.curriculum import Curriculum
from recall_arena.evaluation import Contexts, accuracy, held_out
from recall_arena.model import ModelSpec, SequenceModel, named
from recall_arena.runs import Checks, Run, build, from_json
from recall_arena.seeds import generator
from recall_arena.tasks import MQAR, AssociativeRecall, InductionHeads
from recall_arena.training import Schedule, Training

TASK = AssociativeRecall(queries=4)


def schedule(**fields: object) -> Schedule:
    return Schedule(**{"rate": 1e-2, "steps": 100, "context": 64, "batch": 4, **fields})


def contexts(given: Schedule, task=TASK, stage: int = 0) -> list[int]:
    """The length of each step's sequences, the final query not counted."""
    course = given.course(task)
    course.stage = stage
    return [course.sample(step, 1, seed=0).tokens.shape[1] - 1 for step in range(given.steps)]


# Ranges


def test_without_a_range_or_a_curriculum_every_step_is_the_same_as_ever():
    course = schedule().course(TASK)
    for step in (0, 50, 99):
        batch = course.sample(step, 4, seed=3)
        expected = TASK.sample(4, 64, generator("train", 3, step))
        assert torch.equal(batch.tokens, expected.tokens)
        assert torch.equal(batch.answers, expected.answers)
    assert not course.waits


def test_the_lengths_of_a_range_are_equally_likely():
    lengths = contexts(schedule(shortest=60, context=64, steps=1000))
    counts = Counter(lengths)
    assert set(counts) == {60, 61, 62, 63, 64}
    assert stats.chisquare(list(counts.values())).pvalue > 1e-4


def test_a_length_is_a_function_of_seed_and_step():
    course = schedule(shortest=2).course(TASK)
    one = [course.sample(step, 2, 0).tokens for step in range(20)]
    other = [schedule(shortest=2).course(TASK).sample(step, 2, 0).tokens for step in range(20)]
    assert all(map(torch.equal, one, other))
    assert [x.shape for x in one] != [course.sample(s, 2, seed=1).tokens.shape for s in range(20)]


# Curricula


def test_a_linear_curriculum_rises_from_the_shortest_context_to_the_longest():
    lengths = contexts(schedule(curriculum=Curriculum("linear", until=0.5)))
    assert lengths[0] == 2
    assert lengths[25] == 2 + 62 // 2
    assert lengths == sorted(lengths)
    assert set(lengths[50:]) == {64}
    assert lengths[49] < 64


@given(st.integers(2, 64), st.floats(0.01, 1), st.integers(1, 200))
def test_a_linear_curriculum_begins_where_it_is_told_and_never_falls(begin, until, budget):
    course = schedule(curriculum=Curriculum("linear", begin=begin, until=until), steps=budget)
    caps = [course.course(TASK).at(step)[1] for step in range(budget + 1)]
    assert caps[0] == begin
    assert caps == sorted(caps)
    assert caps[-1] == 64


def test_a_curriculum_over_a_number_of_the_task_leaves_the_rest_as_it_is():
    task = AssociativeRecall(queries=4, delay=9)
    course = schedule(curriculum=Curriculum("linear", over="delay", until=0.8)).course(task)
    tasks = [course.at(step) for step in range(100)]
    delays = [each.delay for each, _ in tasks]
    assert delays == sorted(delays)
    assert (delays[0], delays[-1], set(delays)) == (1, 9, set(range(1, 10)))
    assert tasks == [(replace(task, delay=delay), 64) for delay in delays]

    drawn = course.sample(0, 4, seed=1)
    assert torch.equal(drawn.tokens, tasks[0][0].sample(4, 64, generator("train", 1, 0)).tokens)


@pytest.mark.parametrize(("distance", "last"), [(None, 64), (40, 40)])
def test_a_curriculum_over_the_distance_begins_with_the_nearest_pairs(distance, last):
    task = AssociativeRecall(queries=4, delay=3, distance=distance)
    course = schedule(curriculum=Curriculum("linear", over="distance", until=0.5)).course(task)
    caps = [course.at(step)[0].distance for step in range(100)]
    assert (caps[0], caps[25], caps[50], caps[99]) == (4, 4 + (last - 4) // 2, last, last)
    assert caps == sorted(caps)

    near = course.sample(0, 50, seed=1)  # the shortest distance has one place
    assert torch.equal(near.tokens[:, -2], near.answers)
    everywhere = task.sample(4, 64, generator("train", 1, 99))
    assert torch.equal(course.sample(99, 4, seed=1).tokens, everywhere.tokens)


def test_under_a_rising_cap_the_lengths_are_those_of_the_range_below_it():
    lengths = contexts(schedule(shortest=4, curriculum=Curriculum("linear"), steps=400))
    caps = [int(4 + 60 * min(step / 320, 1)) for step in range(400)]
    assert all(4 <= length <= cap for length, cap in zip(lengths, caps, strict=True))
    assert max(lengths[320:]) > 60


def test_a_gate_opens_at_the_accuracy_and_a_stage_at_a_time():
    course = schedule(curriculum=Curriculum("gated", gate=0.9, stages=4)).course(TASK)
    caps = []
    for accuracy_seen in (0.2, 0.9, 0.89, 1.0, 1.0, 0.95, 1.0):
        course.measured(accuracy_seen)
        caps.append(course.at(99)[1])
    assert caps == [2, 17, 17, 33, 48, 64, 64]
    assert not course.waits


def test_a_gate_without_anybody_who_measures_is_refused():
    gated = schedule(curriculum=Curriculum("gated"))
    with pytest.raises(ValueError, match="gated curriculum needs a course"):
        next(steps(SequenceModel(ModelSpec(("mamba",))), TASK, gated, seed=0))


# In a run

EASY = Run(
    AssociativeRecall(vocabulary=3, delay=2),
    named("transformer-rope", width=8, vocabulary=3),
    schedule(steps=24, context=12, warmup=1, curriculum=Curriculum("gated", gate=0.2, stages=3)),
    Checks(every=4, sequences=200),
    Contexts(first=4, last=12, stride=8, sequences=50),
)


def test_a_gated_run_is_that_of_training_checking_and_moving_on_by_hand():
    _, record, model = finish(EASY)
    by_hand, course = build(EASY), EASY.schedule.course(EASY.task)
    compiled = Compiled(by_hand)
    parameters = by_hand.parameters()
    loop = Training(
        parameters, compiled.loss_and_gradient, EASY.task, EASY.schedule, EASY.seed, course
    )
    stages = []
    for step, _ in enumerate(loop, start=1):
        if step % 4 == 0 and course.waits:
            task, context = course.at(step)
            present = held_out(task, context, 200, "validation")
            course.measured(accuracy(compiled.logits, present).accuracy)
            stages.append(course.stage)
    assert stages[-1] == 3  # a third of the answers is soon right
    assert 0 < len(stages) < 6
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, by_hand.state_dict()[name])
    assert finish(EASY)[1].outcome == record.outcome


def test_a_run_with_a_curriculum_is_read_back_as_it_was():
    assert from_json(EASY.to_json()) == EASY
    assert EASY.to_json()["schedule"]["curriculum"]["kind"] == "gated"


@pytest.mark.parametrize("task", [MQAR(64, pairs=4), InductionHeads(train_on="all")])
@pytest.mark.parametrize("kind", ["linear", "gated"])
def test_other_tasks_have_curricula_too(task, kind):
    over = "pairs" if isinstance(task, MQAR) else "context"
    plan = schedule(steps=4, shortest=16, context=20, curriculum=Curriculum(kind, over))
    model = ModelSpec(("mamba", "attention"), vocabulary=task.vocabulary)
    tested = Contexts(at=(16, 20), sequences=10)
    _, record, _ = finish(Run(task, model, plan, Checks(every=2, sequences=10), tested))
    assert record.outcome.contexts.at == [16, 20]
    assert record.outcome.steps == 4


# What is refused


@pytest.mark.parametrize(
    ("task", "fields", "message"),
    [
        (TASK, {"shortest": 1}, "context must be at least 2 .*got 1"),
        (TASK, {"shortest": 65}, r"shortest must be in 0\.\.64, got 65"),
        (TASK, {"context": 1}, "context must be at least 2"),
        (MQAR(pairs=17), {}, "context must be at least 68"),
        (TASK, {"curriculum": Curriculum("linear", "delays")}, "did you mean 'delay'"),
        (TASK, {"curriculum": Curriculum("linear", begin=1)}, r"begin must be in 2\.\.64, got 1"),
        (TASK, {"curriculum": Curriculum("gated", begin=65)}, r"begin must be in 2\.\.64, got 65"),
        (
            TASK,
            {"shortest": 9, "curriculum": Curriculum("linear", begin=8)},
            r"begin must be in 9\.\.64, got 8",
        ),
        (MQAR(fill="random"), {"curriculum": Curriculum("linear", "fill")}, "There are: context"),
    ],
)
def test_lengths_and_curricula_that_do_not_fit_the_task_are_refused(task, fields, message):
    with pytest.raises(ValueError, match=message):
        schedule(**fields).course(task)


@pytest.mark.parametrize(
    "fields", [{"until": 0.0}, {"until": 1.1}, {"gate": 0.0}, {"gate": 2.0}, {"stages": 0}]
)
def test_impossible_curricula_are_refused(fields):
    with pytest.raises(ValueError, match=f"curriculum.{next(iter(fields))} must be"):
        Curriculum(**fields)
