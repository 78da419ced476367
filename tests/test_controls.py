"""The controls: their runs, which rows are theirs, and what their claims make of them."""

from pathlib import Path

import polars as pl
import pytest
from conftest import ROOT
from made_up import record

from recall_arena.claims import SETTING, decide
from recall_arena.config import as_json
from recall_arena.executors import execute_all
from recall_arena.frame import frame_of
from recall_arena.index import contents_of
from recall_arena.outcomes import runs_of
from recall_arena.records import Record, Store, Tally
from recall_arena.report import write_report
from recall_arena.studies import STUDIES, Plan
from recall_arena.studies.assignment import rates
from recall_arena.studies.assignment.scales import SEARCHED
from recall_arena.studies.controls.claims import (
    ATTENDING,
    CLAIMS,
    KEYS,
    SAME_STATE,
    SHORTCUT,
    SOONER,
    STATE,
)
from recall_arena.studies.controls.settings import ALL, CORNER, NARROW, OWN, WIDTH, recipe_rates
from recall_arena.zoo import name_of

STUDY = STUDIES["controls"]
PUBLISHED = Plan("published", (1, 3))
LEARN = ("transformer-rope", "mamba", "hybrid-a", "hybrid-b")
RATE = {tuple(row): rate for *row, rate in recipe_rates().select(*SETTING, "rate").rows()}
RECIPE = {"budget": 102_000, "decay_steps": 2_000}
MIXED = {"M": 16, "shortest": 2, "decay_steps": 2_000}


def corner(below: float, seeds: range, *, repeats: bool, **said: float) -> list[Record]:
    """Runs of one query; below L they are that accurate where the value is not the query.

    Over all sequences the recipe's are the most accurate there.
    """
    return [
        record(
            model,
            seed,
            tau=tau,
            contexts=counted(below - seed / 1e4, repeats=repeats),
            rate=said.get("rate", RATE[model, 8, 1, tau]),
            repeats=repeats,
            **RECIPE,
        )
        for model in LEARN
        for tau in (1, 5)
        for seed in seeds
    ]


def counted(below: float, *, repeats: bool) -> Tally:
    """Counts at 12, which no comparison has, 32, 64 and 128; half below L have v = q, or none."""
    same = [500, 500, 0, 0] if repeats else [0] * 4
    right = [round((1000 - n) * share) for n, share in zip(same, (0, below, 1, 1), strict=True)]
    correct = [n + r for n, r in zip(same, right, strict=True)]
    return Tally(
        *([12, 32, 64, 128], [1000] * 4, correct, [[1000]] * 4, [[n] for n in correct]), same, same
    )


def width(model: str, d: int, at_L: float, steps_99: int | None = None) -> list[Record]:
    """Runs with 16 queries at lengths up to L: the assignment's, or with seeds of their own."""
    assignment = d == 8 or model == "mamba"
    seeds = range(100, 110) if assignment else range(200, 206)
    return [
        record(
            model,
            seed,
            d=d,
            at_L=at_L - (seed % 5) / 1e3,
            steps_99=steps_99 and steps_99 + seed,
            budget=42_000 if d == 8 else 32_000,
            **MIXED,
        )
        for seed in seeds
    ]


AS_CLAIMED = [
    *width("mamba", 8, 0.5),
    *width("transformer-rope", 8, 0.9),
    *width("mamba", 64, 1.0, 9_000),
    *width(NARROW, 64, 0.7),
    *width("transformer-rope", 64, 1.0, 20_000),
    *width("hybrid-a", 64, 1.0, 3_000),
    *width("hybrid-b", 64, 1.0, 2_000),
]
REVERSED = [
    *width("mamba", 8, 0.9),
    *width("transformer-rope", 8, 1.0),
    *width("mamba", 64, 0.6, 2_000),
    *width(NARROW, 64, 0.8),
    *width("transformer-rope", 64, 0.9, 20_000),
    *width("hybrid-a", 64, 1.0, 3_000),
    *width("hybrid-b", 64, 1.0, 2_500),
]


def verdicts(records: list[Record], part: int) -> list[str | None]:
    """Those of a part, decided with the other's as in the report."""
    claims, settings = [*CLAIMS[CORNER], *CLAIMS[WIDTH]], pl.concat(ALL.values())
    found = decide(claims, runs_of(frame_of(records)), settings)
    return [found[claim.question].verdict for claim in CLAIMS[part]]


def test_the_search_comes_first_and_the_runs_have_seeds_of_their_own() -> None:
    runs = [named.run for named in STUDY.runs(PUBLISHED, Store(Path("nowhere")))]
    assert len({run.address for run in runs}) == len(runs)
    searched = [run for run in runs if run.seed >= SEARCHED]
    assert len(searched) == OWN[WIDTH].height * 3 * 3
    assert {run.model.width for run in searched} == {64}

    own = [run for run in runs if 200 <= run.seed < SEARCHED]
    assert all(not run.task.repeats and run.schedule.shortest is None for run in own)
    assert len(own) == 2 * (4 * 10 + 2 * 5)
    beside = [run for run in runs if run.seed < 200]
    assert all(run.task.repeats for run in beside)
    assert {run.task.queries for run in beside} == {1, 16}
    judged = 3 * 17 + 6  # once the store has the search
    assert STUDY.size(PUBLISHED) == len(runs) + judged


def test_once_the_search_is_there_each_setting_is_trained_at_its_best_rate(tmp_path: Path) -> None:
    plan, store = Plan("smoke", (WIDTH,)), Store(tmp_path)
    searching = STUDY.runs(plan, store)
    while all(one.run.seed >= SEARCHED for one in searching):
        for _ in execute_all([one.run for one in searching], store, jobs=1):
            pass
        searching = STUDY.runs(plan, store)
    trials = rates.trials_of(frame_of(store.read_all(one.run.address for one in searching)))
    best = {(model, rate) for model, rate in rates.best(trials).select("model", "rate").rows()}
    judged = [one.run for one in searching if one.run.seed < SEARCHED]
    assert {(name_of(as_json(run.model)), run.schedule.rate) for run in judged} == best
    assert len(judged) == len(best) == OWN[WIDTH].height
    frame = frame_of(store.read_all(one.run.address for one in searching + STUDY.runs(plan, store)))
    assert set(STUDY.select(frame, plan)["address"]) == set(frame["address"])


def test_only_runs_of_the_plan_and_those_beside_it_are_its_own() -> None:
    own = [
        *corner(1.0, range(200, 203), repeats=False),
        *corner(0.9, range(100, 103), repeats=True),
        *AS_CLAIMED[:10],
    ]
    strangers = [
        *corner(1.0, range(200, 203), repeats=True),
        *corner(1.0, range(100, 103), repeats=False),
        *corner(1.0, range(200, 203), repeats=False, rate=0.5),
        record("mamba", 200, M=16, budget=32_000),  # at L alone
    ]
    rows = STUDY.select(frame_of(own + strangers), PUBLISHED)
    assert set(rows["address"]) == {one.address for one in own}
    assert set(rows.filter(kind="test")["at"]) == {32, 64, 128, 192}, "and 12 was tested too"


def test_the_corner_is_judged_where_the_value_is_not_the_query() -> None:
    with_it = corner(0.9, range(100, 110), repeats=True)
    assert verdicts(with_it + corner(1.0, range(200, 210), repeats=False), CORNER) == ["supported"]
    assert verdicts(with_it + corner(0.7, range(200, 210), repeats=False), CORNER) == ["refuted"]
    assert CLAIMS[CORNER] == (SHORTCUT,)


def test_width_and_state_are_told_apart() -> None:
    assert CLAIMS[WIDTH] == (STATE, SAME_STATE, KEYS, ATTENDING, SOONER)
    supported = ["supported"] * 3
    narrow = corner(0.9, range(100, 110), repeats=True) + corner(
        1.0, range(200, 210), repeats=False
    )
    for records in (AS_CLAIMED, AS_CLAIMED + narrow):
        assert verdicts(records, WIDTH) == [*supported, "undecided", "supported"]
    assert verdicts(REVERSED, WIDTH) == ["refuted"] * 5
    assert verdicts([*AS_CLAIMED[:30], *AS_CLAIMED[36:]], WIDTH)[0] is None  # none with its state


def searched() -> list[Record]:
    """The trials of every wide model, at one rate."""
    return [
        record(model, SEARCHED, d=64, budget=6_000, **(MIXED | {"decay_steps": 0}))
        for model in OWN[WIDTH]["model"]
    ]


@pytest.mark.parametrize(
    "records",
    [
        [],
        AS_CLAIMED + searched(),
        corner(1.0, range(200, 202), repeats=False),
        corner(1.0, range(200, 202), repeats=False) + corner(0.9, range(100, 102), repeats=True),
    ],
)
def test_its_report_is_of_whatever_runs_there_are(records: list[Record]) -> None:
    rows = STUDY.select(frame_of(records), PUBLISHED)
    first, second, *others = STUDY.sections(rows, PUBLISHED)
    judged = rows.filter(pl.col("seed") < SEARCHED)
    for section, queries in ((first, 1), (second, 16)):
        settings = judged.filter(M=queries).select(SETTING).unique().height
        assert bool(section.pictures) == bool(settings)
        compared = settings if queries == 16 or judged["repeats"].n_unique() > 1 else 0
        assert [table.rows.height for table in section.tables] == [compared] * bool(compared)
    assert (len(others) == 2) == bool(rows.filter(pl.col("seed") >= SEARCHED).height)
    if records and records[0].run["task"]["queries"] == 16:
        assert judged.select(SETTING).unique().height == len(ALL[WIDTH])


@pytest.mark.whole
def test_the_published_report_is_what_the_records_give(tmp_path: Path) -> None:
    store, plan = Store(ROOT / "results" / "records"), PUBLISHED
    rows = STUDY.select(contents_of(store).frame, plan)
    assert rows["address"].n_unique() >= STUDY.size(plan), "and where a grid grew"
    write_report(STUDY, plan, rows, tmp_path, (), store)
    kept = ROOT / "results" / "controls" / "report.md"
    assert (tmp_path / "report.md").read_text() == kept.read_text()
