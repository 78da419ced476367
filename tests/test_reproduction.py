"""A shorter run is the beginning of a longer one; published ones are held against it."""

import json
from dataclasses import replace
from functools import cache

import pytest
from conftest import Smoke, recall

from recall_arena.evaluation import Contexts
from recall_arena.execution import Execution
from recall_arena.frame import frame_of
from recall_arena.model import named
from recall_arena.records import Record
from recall_arena.reproduction import Reproduction, held_against
from recall_arena.runs import Checks, Run
from recall_arena.studies.reproduced import section, summary
from recall_arena.tasks import AssociativeRecall
from recall_arena.training import Schedule

WHOLE = Run(
    AssociativeRecall(),
    named("mamba", width=8),
    Schedule(rate=1e-2, steps=120, context=16, batch=16, warmup=20, decay_steps=40),
    Checks(every=20, sequences=50),
    Contexts(at=(8, 16, 32), sequences=50),
)


def begun(steps: int, **changes: object) -> Run:
    schedule = replace(WHOLE.schedule, steps=steps, decay_steps=0)
    return replace(WHOLE, schedule=schedule, contexts=Contexts(at=(16,), sequences=50), **changes)


@cache
def trained(run: Run) -> Record:
    execution = Execution(run)
    for _ in execution:
        pass
    return execution.record()


def one(record: Record, *published: Record) -> Reproduction:
    (found,) = held_against([record], published or [trained(WHOLE)])
    return found


def with_checks(record: Record, **columns: object) -> Record:
    checks = replace(record.outcome.checks, **columns)
    return replace(record, outcome=replace(record.outcome, checks=checks))


def test_a_shorter_run_is_the_beginning_to_the_last_bit() -> None:
    found = one(trained(begun(80)))
    assert (found.identical, found.iterations, found.checks, found.same) == (True, 80, 4, 4)
    assert not found.to_the_end
    assert found.other is None
    assert found.apart() == 0.0


def test_of_several_published_ones_the_one_that_went_furthest_counts() -> None:
    found = one(trained(begun(40)), trained(begun(60)), trained(WHOLE), trained(begun(20)))
    assert found.published.address == WHOLE.address


def test_a_run_that_ended_as_its_counterpart_did_is_compared_whole() -> None:
    whole = trained(WHOLE)
    found = one(whole)
    assert found.identical
    assert found.to_the_end
    tests = whole.outcome.contexts
    wrong = replace(tests, correct=[(tests.correct[0] + 1) % 50, *tests.correct[1:]])
    changed = replace(whole, outcome=replace(whole.outcome, contexts=wrong))
    assert not one(changed).identical


def test_what_differs_is_found_and_said_from_where_on() -> None:
    short = trained(begun(80))
    correct = list(short.outcome.checks.correct)
    correct[2] = (correct[2] + 5) % 50
    found = one(with_checks(short, correct=correct))
    assert (found.identical, found.same) == (False, 2)
    assert section([found], frame_of([trained(WHOLE)]), 1).tables[0].rows["equal"].to_list() == [
        "not after 40"
    ]
    assert summary([found], 3).startswith("0 of 1 runs are the published ones")
    assert summary([found], 3).endswith("; 2 have no published counterpart")


@pytest.mark.parametrize(
    "other",
    [
        begun(80, seed=1),
        replace(begun(80), schedule=replace(begun(80).schedule, rate=3e-3)),
        replace(begun(80), schedule=replace(begun(80).schedule, decay_steps=40)),
        replace(begun(80), task=AssociativeRecall(delay=2)),
    ],
    ids=["seed", "rate", "rate that falls earlier", "task"],
)
def test_another_course_has_no_counterpart(other: Run) -> None:
    assert not list(held_against([trained(other)], [trained(WHOLE)]))


def test_another_platform_is_named() -> None:
    short = trained(begun(80))
    made = replace(short.provenance, kernels="compiled, of another kind")
    found = one(replace(short, provenance=made))
    assert found.other
    assert "compiled, of another kind" in found.other
    assert "where sums round differently" in summary([found], 1)


def test_the_report_shows_each_run_among_all_published_seeds() -> None:
    """All of its setting that were made as its counterpart was, and no others."""
    published = [trained(replace(WHOLE, seed=seed)) for seed in range(3)]
    stranger = trained(replace(WHOLE, task=AssociativeRecall(repeats=False), seed=3))
    own = [trained(begun(80)), trained(begun(40, seed=1))]
    found = list(held_against(own, published))
    shown = section(found, frame_of([*published, stranger]), len(own))
    assert shown.tables[0].rows["equal"].to_list() == ["up to 80", "up to 40"]
    data = shown.pictures[0].drawing.data
    assert set(data["seed"]) == {0, 1, 2}
    marked = sorted(data.filter("marked")["accuracy"])
    assert marked == sorted(one.outcome.checks.accuracy()[-1] for one in own)
    assert set(marked) <= set(data.filter(~data["marked"])["accuracy"])


def test_the_command_says_how_many_are_reproduced(smoke: Smoke, tmp_path: object) -> None:
    plan = ("study", "run", "assignment", "--scale", "smoke", "--problem", "1")
    words = ("--store", str(smoke.store), "--against", str(smoke.store), "--out", "page")
    done = recall(*plan, *words, cwd=tmp_path)  # type: ignore[arg-type]
    assert done.returncode == 0, done.stderr
    as_json = recall(*plan, *words, "--json", cwd=tmp_path)  # type: ignore[arg-type]
    assert json.loads(as_json.stdout)["failed"] == {}
    assert "12 of 12 runs are the published ones, as far as they go" in done.stdout
    assert "Held against the published runs" in (tmp_path / "page" / "report.md").read_text()  # type: ignore[operator]
