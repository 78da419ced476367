"""A run is a value with an address, and executing it finds what the run alone decides."""

import dataclasses
import datetime
import itertools
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from training_checks import finish, steps

from recall_arena import runs
from recall_arena.compiled import Compiled
from recall_arena.config import frozen
from recall_arena.curriculum import Curriculum
from recall_arena.evaluation import Contexts, accuracy, accuracy_by_context, held_out
from recall_arena.execution import Execution
from recall_arena.kernels import native
from recall_arena.mixers import MIXERS
from recall_arena.model import ModelSpec
from recall_arena.monitor import tally
from recall_arena.records import Store, Tally
from recall_arena.runs import Checks, Run, build, from_json
from recall_arena.sources import package_build
from recall_arena.tasks import TASKS, AssociativeRecall
from recall_arena.training import Schedule

TINY = Run(
    task=AssociativeRecall(vocabulary=4, queries=2),
    model=ModelSpec(("mamba", "attention"), vocabulary=4, width=8),
    schedule=Schedule(rate=0.01, steps=7, context=6, batch=4, warmup=2),
    checks=Checks(every=3, sequences=40),
    contexts=Contexts(last=9, sequences=20),
    seed=5,
)


def changed(run: Run, part: str, **changes: object) -> Run:
    """The run with some fields of one of its parts changed."""
    return dataclasses.replace(run, **{part: dataclasses.replace(getattr(run, part), **changes)})


# The address


WHOLE = Run(
    task=AssociativeRecall(vocabulary=16, queries=4, delay=2),
    model=ModelSpec(("attention", "mamba"), positions="learned", max_length=200),
    schedule=Schedule(rate=0.01, steps=1000),
)
CHANGES = {
    "task.vocabulary": {"vocabulary": 17},
    "task.queries": {"queries": 5},
    "task.delay": {"delay": 3},
    "task.distance": {"distance": 30},
    "task.repeats": {"repeats": False},
    "model.layers": {"layers": ("mamba", "attention")},
    "model.vocabulary": {"vocabulary": 17},
    "model.width": {"width": 16},
    "model.positions": {"positions": "none", "max_length": None},
    "model.max_length": {"max_length": 201},
    "model.norm": {"norm": "rms"},
    "model.mlp": {"mlp": "gelu"},
    "model.mlp_expand": {"mlp": "gelu", "mlp_expand": 2},
    "model.embedding": {"embedding": "trained"},
    "schedule.rate": {"rate": 0.010000000000000002},
    "schedule.steps": {"steps": 1001},
    "schedule.context": {"context": 65},
    "schedule.batch": {"batch": 32},
    "schedule.warmup": {"warmup": 0},
    "schedule.decay": {"decay": 0.0},
    "schedule.clip": {"clip": 2.0},
    "schedule.decay_steps": {"decay_steps": 200},
    "schedule.optimizer": {"optimizer": "adam"},
    "schedule.weight_decay": {"weight_decay": 0.1},
    "schedule.shortest": {"shortest": 60},
    "schedule.curriculum.kind": {"curriculum": Curriculum("linear")},
    "schedule.curriculum.over": {"curriculum": Curriculum(over="delay")},
    "schedule.curriculum.begin": {"curriculum": Curriculum(begin=5)},
    "schedule.curriculum.until": {"curriculum": Curriculum(until=0.5)},
    "schedule.curriculum.gate": {"curriculum": Curriculum(gate=0.5)},
    "schedule.curriculum.stages": {"curriculum": Curriculum(stages=5)},
    "checks.every": {"every": 50},
    "checks.sequences": {"sequences": 999},
    "checks.solved": {"solved": 1.0},
    "checks.running": {"running": 4},
    "contexts.first": {"first": 3},
    "contexts.last": {"last": 191},
    "contexts.stride": {"stride": 2},
    "contexts.sequences": {"sequences": 999},
    "contexts.at": {"at": (64, 128)},
    "seed": {},
    "extends": {},
}


def field_names(value: object, prefix: str = "") -> list[str]:
    """The dotted names of all fields, those of dataclasses within included."""
    names = []
    for field in dataclasses.fields(value):
        inner = getattr(value, field.name)
        if dataclasses.is_dataclass(inner):
            names += field_names(inner, f"{prefix}{field.name}.")
        else:
            names.append(prefix + field.name)
    return names


def with_change(name: str) -> Run:
    if name == "seed":
        return dataclasses.replace(WHOLE, seed=1)
    if name == "extends":
        return dataclasses.replace(WHOLE, extends=WHOLE)
    return changed(WHOLE, name.split(".")[0], **CHANGES[name])


@pytest.mark.parametrize("name", field_names(WHOLE))
def test_the_address_changes_with_every_field(name):
    """A new field needs a line in CHANGES."""
    run = with_change(name)
    assert run != WHOLE
    assert run.address != WHOLE.address


def test_addresses_of_different_runs_are_all_different():
    addresses = {with_change(name).address for name in CHANGES} | {WHOLE.address}
    assert len(addresses) == len(CHANGES) + 1
    assert all(len(each) == 16 and int(each, 16) >= 0 for each in addresses)


def test_the_address_changes_with_the_kind_of_task(monkeypatch):
    @frozen
    class Other(AssociativeRecall):
        """The same fields, another task."""

    monkeypatch.setitem(TASKS, "other", Other)
    other = dataclasses.replace(WHOLE, task=Other(**dataclasses.asdict(WHOLE.task)))
    assert other.address != WHOLE.address
    assert from_json(other.to_json()) == other


def test_the_address_changes_with_the_revision_of_the_code(monkeypatch):
    before = WHOLE.address
    monkeypatch.setattr(runs, "REVISION", runs.REVISION + 1)
    assert WHOLE.address != before


def test_the_address_of_this_run_is_this_one():
    """It may change when a run gains a field, a default changes or REVISION is raised.

    The address of every run changes with it: published records are then found no more, and
    must be made again.  Say so in the changelog.
    """
    run = Run(
        task=AssociativeRecall(),
        model=ModelSpec(("mamba", "mamba")),
        schedule=Schedule(rate=0.01, steps=1000),
    )
    assert run.address == "fad492c11264afef"


ELSEWHERE = """
import dataclasses, json, sys
from recall_arena.runs import from_json

run = from_json(json.load(sys.stdin))
whole = dataclasses.replace(run, schedule=dataclasses.replace(run.schedule, clip=1))
assert whole == run
print(json.dumps({"same": run.address, "equal": whole.address}))
"""


@pytest.fixture(scope="module")
def elsewhere() -> dict[str, str]:
    """Addresses in another process, where hashes have another seed and types are not checked."""
    result = subprocess.run(
        [sys.executable, "-c", ELSEWHERE],
        input=json.dumps(TINY.to_json()),
        env={**os.environ, "PYTHONHASHSEED": "12345"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(result.stdout)


def test_the_address_is_the_same_in_every_process(elsewhere):
    assert elsewhere["same"] == TINY.address


def test_equal_runs_have_the_same_address_however_their_numbers_are_written(elsewhere):
    """A clip of 1 is a clip of 1.0."""
    assert elsewhere["equal"] == TINY.address


# As JSON and back


positive = st.floats(0, exclude_min=True, allow_infinity=False)


@st.composite
def any_task(draw):
    vocabulary = draw(st.integers(2, 99))
    return AssociativeRecall(vocabulary, draw(st.integers(1, vocabulary)), draw(st.integers(1, 99)))


@st.composite
def any_model(draw):
    layers = tuple(draw(st.lists(st.sampled_from(sorted(MIXERS)), min_size=1)))
    reach = draw(st.none() | st.integers(1, 999))
    positions = "none" if reach is None else "learned"
    vocabulary, width = draw(st.integers(2, 99)), 2 * draw(st.integers(1, 99))
    return ModelSpec(layers, vocabulary, width, positions, reach)


any_schedule = st.builds(
    Schedule,
    rate=positive,
    steps=st.integers(1, 10**9),
    context=st.integers(1, 999),
    batch=st.integers(1, 999),
    warmup=st.integers(0, 999),
    decay=st.floats(0, 1),
    clip=positive,
)
any_run = st.builds(
    Run,
    task=any_task(),
    model=any_model(),
    schedule=any_schedule,
    checks=st.builds(
        Checks,
        every=st.integers(1, 999),
        sequences=st.integers(1, 9999),
        solved=st.floats(0, 1, exclude_min=True),
        running=st.integers(1, 9),
    ),
    contexts=st.builds(
        Contexts,
        first=st.none() | st.integers(1, 99),
        last=st.integers(100, 999),
        stride=st.integers(1, 99),
        sequences=st.integers(1, 9999),
    ),
    seed=st.integers(0, 2**64),
)


# The type checks, which are on in tests, look at random items of lists.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")
@given(any_run)
def test_a_run_comes_back_from_json_with_its_address(run):
    text = json.dumps(run.to_json())
    back = from_json(json.loads(text))
    assert back == run
    assert hash(back) == hash(run)
    assert back.address == run.address


def test_the_revision_stands_in_the_json():
    assert TINY.to_json()["revision"] == runs.REVISION


@pytest.mark.parametrize(
    "damage",
    [
        lambda values: values.clear(),
        lambda values: values.pop("model"),
        lambda values: values["task"].pop("kind"),
        lambda values: values["task"].update(kind="associative-recal"),
        lambda values: values["task"].update(queries=99),
        lambda values: values["model"].update(layers=["mambo"]),
        lambda values: values["schedule"].pop("rate"),
        lambda values: values["schedule"].update(steps="many"),
        lambda values: values["schedule"].update(steps=-1),
        lambda values: values.update(sede=3),
        lambda values: values["schedule"].update(warm_up=3),
        lambda values: values["task"].update(querys=3),
        lambda values: values["model"].update(widht=3),
        lambda values: values["checks"].update(evry=3),
        lambda values: values["contexts"].update(stryde=3),
    ],
    ids=[
        "nothing",
        "no model",
        "no kind of task",
        "an unknown kind of task",
        "an impossible task",
        "an unknown mixer",
        "no rate",
        "steps in words",
        "negative steps",
        "an unknown field",
        "an unknown field of the schedule",
        "an unknown field of the task",
        "an unknown field of the model",
        "an unknown field of the checks",
        "an unknown field of the contexts",
    ],
)
def test_what_is_no_run_is_a_validation_error(damage):
    values = TINY.to_json()
    damage(values)
    with pytest.raises(ValueError, match=r"should|must|no task|no mixer|required|unexpected"):
        from_json(values)


# Building


def test_first_weights_are_a_function_of_model_and_seed():
    weights = build(TINY).state_dict()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        same = build(changed(changed(TINY, "schedule", rate=0.5), "task", queries=1)).state_dict()
    assert all(torch.equal(weights[name], same[name]) for name in weights)

    other = build(dataclasses.replace(TINY, seed=6)).state_dict()
    assert not torch.equal(weights["lm_head.weight"], other["lm_head.weight"])
    assert torch.equal(weights["embedding.weight"], other["embedding.weight"])


# Executing


def test_progress_counts_the_steps_and_then_the_lengths():
    progress, record, _ = finish(TINY)
    training, testing = progress[:7], progress[7:]

    assert [p.step for p in training] == [1, 2, 3, 4, 5, 6, 7]
    assert {p.tested for p in training} == {0.0}
    assert {(p.step, p.steps) for p in testing} == {(7, 7)}
    assert [p.tested for p in testing] == pytest.approx([n / 8 for n in range(1, 9)])
    assert {p.steps for p in progress} == {7}

    at_checks = record.outcome.checks.accuracy()
    assert [p.accuracy for p in training] == [0, 0, *[at_checks[0]] * 3, at_checks[1], at_checks[2]]
    assert {p.accuracy for p in testing} == {at_checks[2]}


def test_the_record_is_the_runs():
    _, record, model = finish(TINY)
    assert record.address == TINY.address
    assert from_json(record.run) == TINY
    assert record.run == TINY.to_json()
    assert record.cost.parameters == model.trained_parameters()
    assert record.cost.state_size == model.state_size(TINY.schedule.context)
    assert record.cost.training_seconds > 0
    assert record.cost.evaluation_seconds > 0


def test_the_record_says_where_it_comes_from():
    provenance = finish(TINY)[1].provenance
    assert provenance.versions["torch"] == torch.__version__
    assert {"python", "recall-arena", "numpy"} <= provenance.versions.keys()
    assert provenance.kernels == native.describe()
    assert provenance.kernels_build == native.build()
    assert provenance.package_build == package_build()
    assert provenance.threads == torch.get_num_threads()
    finished = datetime.datetime.fromisoformat(provenance.finished)
    age = datetime.datetime.now(datetime.UTC) - finished
    assert datetime.timedelta(-1) < age < datetime.timedelta(hours=1)


def test_the_outcome_is_that_of_training_checking_and_testing_by_hand():
    _, record, model = finish(TINY)
    by_hand = build(TINY)
    validation = held_out(TINY.task, 6, 40, "validation")
    losses, checks = [], []
    for step, loss in enumerate(steps(by_hand, TINY.task, TINY.schedule, seed=5), start=1):
        losses.append(loss)
        if step in (3, 6, 7):  # every third, and the last
            checks.append((step, accuracy(Compiled(by_hand).logits, validation)))

    outcome = record.outcome
    assert outcome.checks == tally(checks)
    assert outcome.losses == pytest.approx(
        [sum(losses[:3]) / 3, sum(losses[3:6]) / 3, losses[6]], rel=1e-12
    )
    assert outcome.contexts == tally(
        list(accuracy_by_context(Compiled(by_hand).logits, TINY.task, TINY.contexts))
    )
    assert outcome.contexts.at == list(range(2, 10))
    assert outcome.contexts.total == [20] * 8
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, by_hand.state_dict()[name])


def test_a_tally_has_a_row_for_each_count():
    counts = accuracy(build(TINY), held_out(TINY.task, 6, 40, "test"))
    assert tally([(6, counts)]) == Tally(
        at=[6],
        total=[40],
        correct=[counts.correct],
        total_by_query=[counts.total_by_query],
        correct_by_query=[counts.correct_by_query],
        total_repeats=[counts.total_repeats],
        correct_repeats=[counts.correct_repeats],
    )


# How a run ends


def test_a_run_that_solves_nothing_uses_its_budget():
    outcome = finish(TINY)[1].outcome
    assert (outcome.ended_by, outcome.steps, outcome.solved_at) == ("budget", 7, None)
    assert outcome.checks.at == [3, 6, 7]


@pytest.mark.parametrize(("every", "running"), [(1, 1), (2, 1), (2, 3), (1, 7), (3, 3)])
def test_a_run_is_solved_as_soon_as_enough_checks_in_a_row_reach_the_threshold(every, running):
    """A threshold of 0 is reached by each check."""
    run = changed(TINY, "checks", every=every, running=running, solved=1e-9)
    progress, record, _ = finish(run)
    at = [step for step in range(1, 8) if step % every == 0 or step == 7][:running]

    assert record.outcome.ended_by == "solved"
    assert record.outcome.solved_at == at[0] == every
    assert record.outcome.steps == at[-1] == max(p.step for p in progress)
    assert record.outcome.checks.at == at
    assert len(record.outcome.contexts.at) == 8


def test_fewer_checks_than_the_rule_asks_for_solve_nothing():
    run = changed(TINY, "checks", every=3, running=4, solved=1e-9)
    assert finish(run)[1].outcome.ended_by == "budget"


def test_checks_count_only_in_a_row():
    """Accuracy here goes up and down around the threshold before it stays above."""
    run = changed(changed(TINY, "schedule", steps=200), "checks", every=1, sequences=20)
    run = dataclasses.replace(changed(run, "checks", solved=0.4, running=5), seed=6)
    outcome = finish(run)[1].outcome
    reached = [share >= 0.4 for share in outcome.checks.accuracy()]

    assert outcome.ended_by == "solved"
    assert reached.index(True) + 1 < outcome.solved_at  # an earlier check was not followed up
    assert sum(reached) > 5
    windows = [all(reached[i : i + 5]) for i in range(len(reached) - 4)]
    assert windows.index(True) == len(windows) - 1
    assert outcome.solved_at == windows.index(True) + 1
    assert outcome.steps == outcome.solved_at + 4


def test_a_threshold_that_is_just_met_is_met():
    checks = finish(TINY)[1].outcome.checks
    run = changed(TINY, "checks", running=1, solved=checks.accuracy()[0])
    assert finish(run)[1].outcome.solved_at == 3


@pytest.mark.parametrize("layers", [("mamba",), ("attention", "attention")])
def test_a_run_whose_loss_is_not_finite_ends_and_is_still_tested(layers, tmp_path):
    run = changed(TINY, "schedule", rate=1e25, warmup=0, steps=50)
    run = changed(changed(run, "model", layers=layers), "checks", every=1)
    progress, record, _ = finish(run)
    outcome = record.outcome

    assert outcome.ended_by == "diverged"
    assert outcome.solved_at is None
    assert 1 < outcome.steps < 50
    assert all(map(math.isfinite, outcome.losses))
    assert len(outcome.losses) == len(outcome.checks.at) == outcome.steps - 1
    assert outcome.contexts.at == list(range(2, 10))
    assert progress[-1].tested == 1

    store = Store(tmp_path)
    store.write(record)
    assert store.read(run.address) == record


@pytest.mark.parametrize("broken", [{"every": 0}, {"running": 0}, {"sequences": 0}])
def test_checks_that_cannot_be_made_are_refused(broken):
    with pytest.raises(ValueError, match=next(iter(broken))):
        Checks(**broken)


@pytest.mark.parametrize("broken", [{"stride": 0}, {"sequences": 0}, {"at": (8, 4)}])
def test_contexts_that_cannot_be_tested_are_refused(broken):
    with pytest.raises(ValueError, match=next(iter(broken))):
        Contexts(**broken)


# The same run finds the same


def test_the_same_run_finds_the_same_whatever_happens_beside_it():
    _, record, model = finish(TINY)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        finish(dataclasses.replace(TINY, seed=1))
        _, again, same = finish(TINY)
    assert again.outcome == record.outcome
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, same.state_dict()[name])


def test_runs_that_take_turns_find_what_they_find_alone():
    pair = [TINY, dataclasses.replace(TINY, seed=6)]
    alone = [finish(run)[1].outcome for run in pair]
    executions = [Execution(run) for run in pair]
    for _ in itertools.zip_longest(*executions):
        pass
    assert [each.record().outcome for each in executions] == alone
    assert alone[0] != alone[1]


def test_executing_leaves_all_global_random_state_as_it_was():
    np.random.rand(), torch.rand(1)  # noqa: NPY002 - a state that no seed leads to
    _, keys, position, *_ = np.random.get_state()  # noqa: NPY002
    ours = torch.get_rng_state()
    finish(TINY)

    _, keys_after, position_after, *_ = np.random.get_state()  # noqa: NPY002
    assert position_after == position
    assert (keys_after == keys).all()
    assert torch.equal(torch.get_rng_state(), ours)


def test_a_closed_run_goes_no_further():
    working = iter(Execution(TINY))
    assert [p.step for p in itertools.islice(working, 2)] == [1, 2]
    working.close()
    assert list(working) == []


def test_what_does_not_fit_the_task_is_found_before_the_first_step():
    with pytest.raises(ValueError, match="context must be at least"):
        Execution(changed(TINY, "schedule", context=1))
