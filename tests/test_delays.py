"""The delay ladder: its runs, which rows are theirs, and what its claims make of them."""

from pathlib import Path

import polars as pl
import pytest
from conftest import ROOT
from made_up import record

from recall_arena.claims import decide
from recall_arena.frame import frame_of
from recall_arena.index import contents_of
from recall_arena.outcomes import runs_of
from recall_arena.records import Record, Store
from recall_arena.report import write_report
from recall_arena.studies import STUDIES, Plan
from recall_arena.studies.delays import BETWEEN, CLAIMS, DELAYS, MODELS, NO_WALL, REACH, SETTINGS

STUDY = STUDIES["delays"]
PUBLISHED = Plan("published", (1,))
SEEDS = range(200, 210)
LATER = [f"What does a longer delay cost {name}?" for name in ("Mamba", "Hybrid-A")]


def ladder(steps: dict[str, dict[int, int]], *, seeds: range = SEEDS) -> list[Record]:
    """Records that reach 99 % so soon, by model and delay."""
    return [
        record(
            model,
            seed,
            tau=tau,
            steps_99=found + 10 * (seed % 3),
            shortest=tau + 1,
            budget=22_000,
            decay_steps=2_000,
        )
        for model, by_delay in steps.items()
        for tau, found in by_delay.items()
        for seed in seeds
    ]


AS_CLAIMED = {
    "mamba": {tau: 500 * tau + 5_000 * (tau > 6) for tau in DELAYS},
    "hybrid-a": {tau: 600 * tau + 4_000 * (tau > 3) for tau in DELAYS},
}
AT_ONCE = {model: dict.fromkeys(DELAYS, 500) for model in MODELS}


def verdicts(records: list[Record]) -> dict[str, str | None]:
    found = decide(CLAIMS, runs_of(frame_of(records)), SETTINGS)
    return {question: finding.verdict for question, finding in found.items()}


def test_every_model_meets_every_delay_with_seeds_of_its_own() -> None:
    runs = [named.run for named in STUDY.runs(PUBLISHED, Store(Path("nowhere")))]
    assert len(runs) == STUDY.size(PUBLISHED) == len(MODELS) * len(DELAYS) * len(SEEDS)
    assert {run.seed for run in runs} == set(SEEDS)
    assert len({run.address for run in runs}) == len(runs)
    assert {(run.task.delay, run.schedule.shortest - 1) for run in runs} == {
        (delay, delay) for delay in DELAYS
    }
    assert all(run.contexts.first > max(DELAYS) for run in runs)


def test_only_runs_by_its_recipe_are_its_own() -> None:
    own = ladder(AT_ONCE, seeds=range(200, 202))
    others = [
        record("mamba", 200, tau=3),  # L alone
        *ladder({"hybrid-b": {3: 500}}),
        *ladder({"mamba": {3: 500}}, seeds=range(100, 102)),
    ]
    rows = STUDY.select(frame_of(own + others), PUBLISHED)
    assert set(rows["address"]) == {one.address for one in own}


def test_claims_follow_from_the_runs() -> None:
    found = verdicts(ladder(AS_CLAIMED))
    assert [found[question] for question in LATER] == ["supported", "supported"]
    assert found[REACH.question] == found[BETWEEN.question] == "supported"
    assert found[NO_WALL.question] == "undecided"  # ten runs of each do not show it of all


def test_claims_fall_where_runs_are_the_other_way_round() -> None:
    backwards = {
        model: {13 - tau: found for tau, found in by_delay.items()}
        for model, by_delay in AS_CLAIMED.items()
    }
    backwards["mamba"] |= {4: 9_000, 5: 9_000, 6: 12_000}
    found = verdicts(ladder(backwards))
    assert [found[question] for question in LATER] == ["refuted", "refuted"]
    assert found[REACH.question] == found[BETWEEN.question] == "refuted"


def test_one_delay_that_is_not_learnt_is_a_wall() -> None:
    runs = ladder(AS_CLAIMED)
    runs[-1] = record(
        "hybrid-a", 209, tau=12, at_L=0.5, shortest=13, budget=22_000, decay_steps=2_000
    )
    assert verdicts(runs)[NO_WALL.question] == "refuted"


@pytest.mark.parametrize("records", [[], ladder(AS_CLAIMED, seeds=range(200, 202))])
def test_its_report_is_of_whatever_runs_there_are(records: list[Record]) -> None:
    rows = STUDY.select(frame_of(records), PUBLISHED) if records else frame_of([])
    (section,) = STUDY.sections(rows, PUBLISHED)
    assert len(section.findings) == len(CLAIMS)
    for table in section.tables:
        assert table.rows.height == len(DELAYS)
        assert table.rows.select(pl.col("^.*learnt$")).unique().row(0) == ("2 of 2", "2 of 2")
    assert [len(picture.drawing.data) > 0 for picture in section.pictures] == [True, True][
        : 2 * bool(records)
    ]


@pytest.mark.whole
def test_the_published_report_is_what_the_records_give(tmp_path: Path) -> None:
    store = Store(ROOT / "results" / "records")
    rows = STUDY.select(contents_of(store).frame, PUBLISHED)
    assert rows["address"].n_unique() == STUDY.size(PUBLISHED)
    write_report(STUDY, PUBLISHED, rows, tmp_path, (), store)
    kept = ROOT / "results" / "delays" / "report.md"
    assert (tmp_path / "report.md").read_text() == kept.read_text()
