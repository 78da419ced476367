"""The second reading of "up to context length L": lengths up to L are trained."""

from collections.abc import Mapping

import polars as pl
import pytest
from made_up import record

from recall_arena.claims import Finding
from recall_arena.frame import frame_of
from recall_arena.outcomes import runs_of
from recall_arena.records import Record
from recall_arena.rules import Ahead
from recall_arena.studies import STUDIES, Plan
from recall_arena.studies.assignment import mixed
from recall_arena.studies.assignment.settings import table_of

STUDY = STUDIES["assignment"]
SEEDS = range(17)


def both(*, learnt: float = 1.0, below: float = 1.0, beyond: float = 1.0) -> list[Record]:
    """Runs of Problems 1 and 2; at lengths up to L they are so good, at L alone a bit worse."""
    found = []
    for model, d, M, tau in table_of((1, 2)).select("model", "d", "M", "tau").rows():
        for seed in SEEDS:
            own = {"model": model, "d": d, "M": M, "tau": tau, "seed": seed}
            worse = {"below": 0.5 + seed / 100, "beyond": 0.5 + seed / 100}
            found.append(record(**own, **worse, steps_99=2_000 + 100 * seed))
            found.append(
                record(
                    **own,
                    at_L=learnt,
                    below=below,
                    beyond=beyond,
                    steps_99=100 + seed,
                    shortest=tau + 1,
                )
            )
    return found


def findings(records: list[Record]) -> Mapping[str, Finding]:
    return mixed.decided(runs_of(frame_of(records))).both


def test_what_all_runs_show_is_supported() -> None:
    assert {one.verdict for one in findings(both()).values()} == {"supported"}


@pytest.mark.parametrize(
    ("claim", "worse"),
    [(mixed.SHORT, {"below": 0.3}), (mixed.FURTHER, {"beyond": 0.3}), (mixed.EVERY_QUERY, {})],
    ids=["below", "beyond", "learnt"],
)
def test_what_they_show_the_reverse_of_is_refuted(
    claim: mixed.Claim, worse: dict[str, float]
) -> None:
    records = both(**worse)
    if not worse:
        records.append(record("hybrid-a", 99, M=16, at_L=0.9, shortest=2))
    found = dict(findings(records))
    assert found.pop(claim.question).verdict == "refuted"
    assert {one.verdict for one in found.values()} == {"supported"}


def test_what_was_measured_tells_both_readings_apart() -> None:
    measured = findings(both())[mixed.FURTHER.question].measured
    assert "(τ = 1, L alone) 50.0 to 66.0 %" in measured
    assert "(τ = 1, lengths from 2) 100.0 to 100.0 %" in measured


def test_the_recipe_s_runs_and_those_at_lengths_up_to_L_are_not_taken_for_one_another() -> None:
    spent = {"seed": 100, "budget": 6_000, "decay_steps": 0}
    records = [record(shortest=shortest, **spent) for shortest in (None, 2, 3)]
    rows = STUDY.select(frame_of(records), Plan("quick", (1,), 1))
    assert set(rows["address"]) == {records[0].address}


def test_the_report_sets_both_beside_one_another() -> None:
    frame = frame_of(both(learnt=0.5))
    runs = runs_of(frame)
    (section,) = mixed.section(frame, runs, mixed.decided(runs))
    readings, verdicts = (table.rows for table in section.tables)
    assert readings.height == table_of((1, 2)).height
    shown = set(readings.select("learnt", "iterations to 99 %", "below L").rows())
    assert shown == {("17 of 17 → 0 of 17", "2,800 → 108", "58.0 % → 100.0 %")}
    question = "Does what is learnt at L work at shorter contexts, with delay 1?"
    row = verdicts.row(by_predicate=pl.col("question") == question)
    assert row[1:] == ("refuted", "undecided"), "nothing was learnt at lengths up to L"
    for picture in section.pictures:
        assert picture.drawing.data.height


@pytest.mark.parametrize("shortest", [None, 2])
def test_one_reading_alone_is_set_beside_nothing(shortest: int | None) -> None:
    frame = frame_of([record(seed=seed, shortest=shortest) for seed in range(3)])
    runs = runs_of(frame)
    assert mixed.section(frame, runs, mixed.decided(runs)) == []
    assert mixed.trials(frame) is None


def test_what_comes_after_the_smaller_budget_counts_as_never() -> None:
    """An iteration that the one group was not given tells nothing of which is sooner."""
    late = [record(seed=seed, steps_99=60_000, budget=100_000) for seed in SEEDS]
    never = [record(seed=seed, budget=40_000, shortest=2) for seed in SEEDS]
    rule = Ahead("steps_99", "L alone against mixed", [("Mamba", ~mixed.MIXED, mixed.MIXED)])
    assert rule.rule(runs_of(frame_of(late + never))).p == 1
    soon = [record(seed=seed, steps_99=900, budget=100_000) for seed in SEEDS]
    assert rule.rule(runs_of(frame_of(soon + never))).verdict == "refuted"
