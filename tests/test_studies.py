"""The assignment's study: the right experiments, at searched rates, and honest verdicts."""

from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

import polars as pl
import pytest
from conftest import ROOT
from made_up import record, tally

from recall_arena.claims import SETTING, Finding, decide
from recall_arena.config import as_json
from recall_arena.frame import frame_of
from recall_arena.outcomes import runs_of
from recall_arena.records import Record, Store
from recall_arena.studies import STUDIES, Plan, Section
from recall_arena.studies.assignment import rates
from recall_arena.studies.assignment.claims import ALL, CLAIMS
from recall_arena.studies.assignment.scales import FOUR_RATES, SCALES, SEARCHED, THREE_RATES
from recall_arena.studies.assignment.sections import what_changed
from recall_arena.studies.assignment.settings import SETTINGS, table_of
from recall_arena.wording import NO_RUN
from recall_arena.zoo import ZOO, name_of

STUDY = STUDIES["assignment"]
NOTHING = Store(ROOT / "no such folder")
PUBLISHED = Plan("published", (1, 2, 3))
JUDGES = Plan("evidence", (1, 2, 3))
ENTIRE = Plan("quick", (1, 2, 3), 3)


def test_the_settings_are_those_of_the_assignment() -> None:
    asked = {(s.problem, s.model, s.M, s.tau, s.d) for s in SETTINGS}
    one = {(1, model, 1, delay, 8) for model in ZOO for delay in (1, 5)}
    models = ("mamba", "transformer-rope", "hybrid-a", "hybrid-b")
    two = {(2, model, queries, 1, 8) for model in models for queries in (4, 8, 16)}
    three = {(3, "mamba", queries, 1, 64) for queries in (4, 8, 16)} | {(3, "mamba", 16, 10, 64)}
    assert asked == one | two | three


def test_runs_have_the_assignment_s_numbers_and_differ() -> None:
    runs = [named.run for named in STUDY.runs(PUBLISHED, NOTHING)]
    assert len({run.address for run in runs}) == len(runs) == STUDY.size(PUBLISHED)
    alone = [run for run in runs if run.schedule.shortest is None]
    assert len(alone) == 8 * 20 + 4 * 3 + 16 * 3
    mixed = [run for run in runs if run.schedule.shortest is not None]
    of_one_query = 6 * 20 + 2 * 40 + 2 * 50 + 2 * 3
    assert len(mixed) == of_one_query + 6 * 20 + 6 * 10 + 4 * 6
    assert all(run.schedule.shortest == run.task.delay + 1 for run in mixed)
    for run in runs:
        assert (run.schedule.context, run.schedule.batch, run.model.vocabulary) == (64, 64, 16)
        assert run.contexts.lengths(run.task) == range(run.task.shortest_context, 193)
        assert run.contexts.sequences >= 1000
    learned = [run.model for run in runs if run.model.positions == "learned"]
    assert {model.max_length for model in learned} == {193}


def test_a_problem_alone_brings_what_it_is_compared_with() -> None:
    runs = [named.run for named in STUDY.runs(Plan("quick", (3,), 1), NOTHING)]
    assert len(runs) == 4 + 3
    assert sum(run.model.width == 8 for run in runs) == 3


@pytest.mark.parametrize(("plan", "least"), [(ENTIRE, 3), (PUBLISHED, 3)])
def test_every_setting_has_its_rates_on_record_and_one_chosen(plan: Plan, least: int) -> None:
    tried = rates.published(plan).group_by(SETTING).agg(rates=pl.col("rate").n_unique())
    assert set(tried.select(SETTING).rows()) == set(table_of((1, 2, 3)).select(SETTING).rows())
    assert min(tried["rates"]) >= least
    assert rates.best(rates.published(plan)).height == len(SETTINGS)


def test_the_runs_have_the_rates_that_the_search_chose() -> None:
    chosen = rates.best(rates.published(ENTIRE))
    for named in STUDY.runs(Plan("quick", (1, 2, 3), 1), NOTHING):
        run = named.run
        own = (
            name_of(as_json(run.model)),
            run.model.width,
            run.task.queries,
            run.task.delay,
        )
        row = chosen.filter([pl.col(n) == v for n, v in zip(SETTING, own, strict=True)])
        assert run.schedule.rate == row["rate"].item()


def test_no_reported_run_has_the_seed_of_the_search() -> None:
    for scale in SCALES:
        assert max(one.run.seed for one in STUDY.runs(Plan(scale, (1, 2, 3)), NOTHING)) < SEARCHED


def trials(*tried: tuple[float, float, int | None, str]) -> pl.DataFrame:
    """Trials of one setting: rate, accuracy, when it was solved, how it ended."""
    records = [
        record(
            seed=SEARCHED,
            rate=rate,
            checks=tally({solved_at or 500: accuracy}),
            steps_99=solved_at,
            ended_by=end,
        )
        for rate, accuracy, solved_at, end in tried
    ]
    return rates.trials_of(frame_of(records))


def test_the_best_rate_solves_first_or_else_is_most_accurate() -> None:
    late, early = (0.1, 1.0, 90, "solved"), (0.2, 0.999, 50, "solved")
    close, far = (0.3, 0.9, None, "budget"), (0.4, 0.1, None, "budget")
    assert rates.best(trials(close, late, early))["rate"].to_list() == [0.2]
    assert rates.best(trials(far, close))["rate"].to_list() == [0.3]


def test_a_trial_that_diverged_is_never_chosen() -> None:
    bad = (0.2, 0.9, None, "diverged")
    assert rates.best(trials(bad, (0.1, 0.1, None, "budget")))["rate"].to_list() == [0.1]
    assert rates.best(trials(bad)).is_empty()


def test_the_grid_grows_beyond_an_edge_at_which_the_best_rate_stands() -> None:
    by_rate = {1e-4: 0.2, 3e-4: 0.6, 1e-3: 0.5, 3e-3: 0.4, 1e-2: 0.3, 3e-2: 0.1}
    every = trials(*((rate, share, None, "budget") for rate, share in by_rate.items()))
    four = FOUR_RATES[8]
    assert rates.grid(four, 1, every) == (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
    assert rates.grid(four, 1, every.filter(pl.col("rate") >= 1e-3)) == (3e-4, *four)
    assert rates.grid(four, 2, every) == four, "a seed of each is missing"


def test_a_grid_stays_as_it_is_until_all_of_its_rates_were_tried() -> None:
    named = STUDIES["rates"].runs(Plan("quick", (1, 2, 3), 1), NOTHING)
    assert len(named) == STUDIES["rates"].size(Plan("quick", (1, 2, 3), 1)) == 3 * 12 + 4 * 16


def test_rates_are_not_chosen_from_half_a_search() -> None:
    choose = STUDIES["rates"].choose
    assert choose is not None
    with pytest.raises(ValueError, match="0 of 100 search runs"):
        choose(Plan("quick", (1, 2, 3), 1), NOTHING)


def test_the_seeds_that_judge_are_apart_from_those_that_found_the_hypotheses() -> None:
    """Under a constant rate, whose decay comes after; so no budget moves what was before it."""
    runs = [named.run for named in STUDY.runs(JUDGES, NOTHING)]
    assert len(runs) == STUDY.size(JUDGES) == 8 * 20 + 4 * 10 + 12 * 20 + 4 * 10
    for run in runs:
        constant = run.schedule.steps - 2_000
        assert run.schedule.rate_at(constant - 1) == run.schedule.rate
        assert run.schedule.rate_at(constant + 1_000) == pytest.approx(run.schedule.rate / 2)
    assert {run.seed for run in runs} == set(range(100, 120))


def test_a_search_with_some_seeds_prefers_the_rate_that_most_of_them_solve() -> None:
    plan = Plan("evidence", (1,))
    named = STUDIES["rates"].runs(plan, NOTHING)
    assert len(named) == STUDIES["rates"].size(plan) == 3 * 3 * 12
    assert {one.run.schedule.rate for one in named} == set(THREE_RATES[8])
    assert {one.run.schedule.rate_at(9_999) for one in named} == set(THREE_RATES[8])
    often = [(0.1, 1.0, at, "solved") for at in (800, 900)]
    once = [(0.2, 1.0, 100, "solved"), (0.2, 0.98, None, "budget")]
    assert rates.best(trials(*often, *once))["rate"].to_list() == [0.1]


@cache
def chosen_rates() -> dict[tuple[object, ...], float]:
    """The rate that the search chose for each setting."""
    best = rates.best(rates.published(ENTIRE))
    return dict(zip(best.select(SETTING).rows(), best["rate"], strict=True))


def made(setting: dict[str, object], seed: int, **rest: object) -> Record:
    """A record of a setting with the budget of the quick scale and the chosen rate."""
    own = {name: setting[name] for name in SETTING}
    rate = chosen_rates()[tuple(own.values())]
    effort = SCALES["quick"].problems[setting["problem"]].runs  # type: ignore[index]
    spent = {"budget": effort.steps, "decay_steps": effort.decay_steps}
    return record(seed=effort.first_seed + seed, **{**own, "rate": rate, **spent, **rest})


def everything(**rest: object) -> list[Record]:
    """A record of every setting and three seeds."""
    return [made(asdict(setting), seed, **rest) for setting in SETTINGS for seed in range(3)]


def chosen(records: list[Record], plan: Plan = ENTIRE) -> set[str]:
    return set(STUDY.select(frame_of(records), plan)["address"])


def test_a_plan_takes_its_own_runs_out_of_any_store() -> None:
    own = everything()
    setting = asdict(SETTINGS[0])
    strangers = [made(setting, 3), made(setting, 0, budget=7), made(setting, 0, d=16)]
    assert chosen(own + strangers) == {one.address for one in own}
    alone = STUDY.select(frame_of(own), Plan("quick", (3,), 1))
    assert alone["address"].n_unique() == 7


@pytest.mark.parametrize(
    ("part", "fields"),
    [
        ("schedule", {"shortest": 2}),
        ("schedule", {"curriculum": {"kind": "linear"}}),
        ("schedule", {"optimizer": "adam"}),
        ("schedule", {"weight_decay": 0.1}),
        ("task", {"distance": 5}),
        ("task", {"repeats": False}),
        ("task", {"kind": "mqar"}),
        ("extends", {"seed": 0}),
    ],
)
def test_a_run_by_another_recipe_stays_out(part: str, fields: dict[str, object]) -> None:
    own = everything()
    other = {**own[0].run, part: {**own[0].run.get(part, {}), **fields}}
    stranger = replace(own[0], address="~", run=other)  # else it would be the last by its name
    assert chosen([*own, stranger]) == {one.address for one in own}


def test_the_page_plays_models_that_were_trained_by_the_recipe() -> None:
    own, others = record("mamba", 3), [record("mamba", 1, repeats=False), record("mamba", 2, M=4)]
    assert STUDY.playable is not None
    (played,) = [one.addresses for one in STUDY.playable(frame_of([own, *others])) if one.addresses]
    assert played == (own.address,)


def test_records_of_an_older_revision_are_drawn_where_there_are_no_newer_ones() -> None:
    old = everything(revision=5)
    assert chosen(old) == {one.address for one in old}
    new = [made(asdict(SETTINGS[0]), seed) for seed in range(3)]
    assert chosen(old + new) == {one.address for one in (old[3:] + new)}


def test_runs_of_one_setting_are_never_of_two_rates() -> None:
    own, other = (
        [made(asdict(SETTINGS[0]), seed, **rate) for seed in range(3)]
        for rate in ({}, {"rate": 0.5})
    )
    assert chosen(own[:1] + other) == {own[0].address}
    assert chosen(other) == {one.address for one in other}


def findings(records: list[Record], problem: int, plan: Plan = ENTIRE) -> list[Finding]:
    frame, settings = STUDY.select(frame_of(records), plan), table_of((1, 2, 3))
    found = decide(ALL, runs_of(frame), settings)
    return [found[claim.question] for claim in CLAIMS[problem]]


def test_eighteen_questions_are_asked_each_once() -> None:
    assert len({claim.question for claim in ALL}) == len(ALL) == 18


@pytest.mark.parametrize("problem", [1, 2, 3])
def test_runs_that_all_succeed_decide_nothing_with_three_seeds_but_refute(problem: int) -> None:
    """RoPE then carries beyond L with more queries: a single run refutes that it does not."""
    verdicts = [finding.verdict for finding in findings(everything(steps_99=900), problem)]
    expected = {
        1: ["undecided"] * 7,
        2: [*["undecided"] * 7, "refuted"],
        3: ["undecided"] * 3,
    }
    assert verdicts == expected[problem]


@pytest.mark.whole
def test_a_part_of_the_report_is_never_quicker_to_decide_than_the_whole() -> None:
    """Accuracy falls with M in all runs but one, of the widest model, which Problem 3 is about."""
    fall = {1: 1.0, 4: 0.9, 8: 0.5, 16: 0.2}
    records = [
        made(asdict(s), seed, at_L=0.95 if (s.d, s.M, seed) == (64, 8, 2) else fall[s.M])
        for s in SETTINGS
        for seed in range(3)
    ]

    def said(plan: Plan) -> str:
        sections = STUDY.sections(STUDY.select(frame_of(records), plan), plan)
        (three,) = [one for one in sections if one.title.startswith("Problem 3")]
        return f"{three.answers[0].findings[0].verdict}: {three.answers[0].findings[0].comment}"

    whole, alone = said(ENTIRE), said(Plan("quick", (3,), 3))
    assert "p is 0.0058, adjusted 0.058." in whole
    assert "p is 0.0058, adjusted 0.075." in alone


def test_the_hybrid_is_first_only_if_it_is_before_both_of_its_parents() -> None:
    def verdict(mamba: int | None, rope: int | None) -> str | None:
        steps = {"hybrid-a": 300, "mamba": mamba, "transformer-rope": rope}
        records = [
            made(asdict(s), seed, steps_99=steps.get(s.model, 900))
            for s in SETTINGS
            for seed in range(9)
        ]
        (own,) = [
            f
            for f in findings(records, 1, Plan("quick", (1, 2, 3), 9))
            if "delay 5" in f.question and "faster" in f.question
        ]
        return own.verdict

    assert [verdict(900, None), verdict(300, 900), verdict(200, 900)] == [
        "supported",
        "undecided",
        "refuted",
    ]


def test_queries_learnt_together_refute_the_staircase() -> None:
    def verdict(by_query: list[float]) -> str | None:
        checks = tally({100: 0.5}, by_query=[by_query])
        return findings(everything(checks=checks), 2)[1].verdict

    assert verdict([1.0, 1.0, 0.0, 0.0]) == "undecided"
    assert verdict([0.5, 0.5, 0.5, 0.5]) == "refuted"


def test_a_missing_setting_is_named_and_the_others_are_judged() -> None:
    records = [one for one in everything() if "hybrid-a 8 1 1" not in one.address]
    first, second = findings(records, 1)[0], findings(records, 1)[2]
    assert (first.verdict, first.comment) == (None, "Missing: Hybrid-A.")
    assert second.verdict == "undecided"


def report_of(records: list[Record], plan: Plan = ENTIRE) -> dict[str, Section]:
    """The sections of a report by their titles."""
    return {one.title: one for one in STUDY.sections(STUDY.select(frame_of(records), plan), plan)}


@pytest.fixture(scope="module")
def entire() -> dict[str, Section]:
    """The report of a record of every setting and three seeds."""
    return report_of(everything())


def test_the_report_says_what_changed_of_runs_and_search_as_far_as_it_did() -> None:
    def said(revision: int, searched: int, **rest: object) -> str:
        records = [
            made(asdict(s), seed, revision=revision, **rest) for s in SETTINGS for seed in (0, 1)
        ]
        trials = rates.published(PUBLISHED).with_columns(revision=pl.lit(searched))
        return " ".join(
            p for s in what_changed(runs_of(frame_of(records)), trials) for p in s.setting
        )

    again, longer = "The search was made again", "The RoPE transformer at M = 16"
    assert said(5, 5) == ""
    assert again in said(5, 6)
    assert longer.lower() not in said(5, 6).lower()
    assert said(6, 5).startswith("Claims counted test sequences"), "as many iterations as before"
    assert "reaches 100.0 / 100.0 % within 100,000." in said(6, 6, budget=100_000)


def test_a_report_of_no_runs_draws_nothing_and_says_so() -> None:
    sections = report_of([])
    assert "Every run" not in sections
    for title, section in sections.items():
        assert title == "Learning rates" or not section.drawn
        assert title == "Learning rates" or NO_RUN in section.setting
        told = [finding for answer in section.answers for finding in answer.findings]
        assert {finding.comment for finding in told} <= {NO_RUN}


def test_unequal_numbers_of_seeds_are_said_and_judged() -> None:
    records = [one for i, one in enumerate(everything(steps_99=900)) if i % 3 < 2 or i > 9]
    sections = report_of(records)
    one = sections["Problem 1: the induction head"]
    assert "A setting has 2 to 3 seeds." in " ".join(sections["How to read this"].setting)
    assert "2 to 3 seeds a curve" in one.answers[0].pictures[0].drawing.caption
    assert one.answers[0].findings[0].verdict == "undecided"


@pytest.mark.whole
def test_runs_with_other_budgets_stay_out_of_a_report(entire: dict[str, Section]) -> None:
    others = [made(asdict(s), 0, budget=7, at_L=0.1) for s in SETTINGS]
    sections = report_of(everything() + others)
    assert sections["Every run"].tables[0].rows.equals(entire["Every run"].tables[0].rows)


def test_what_a_section_says_of_its_runs_follows_from_them(entire: dict[str, Section]) -> None:
    assert (
        "d = 8, M = 1, τ = 1 and 5, L = 64, K = 16. Transformer (learned): learned positions, "
        "attention, attention; Transformer (RoPE): attention-rope, attention-rope; "
    ) in " ".join(entire["Problem 1: the induction head"].setting)
    wide = " ".join(entire["Problem 3: wide embeddings, and a long delay"].setting)
    assert "d = 64, M = 4, 8 and 16, τ = 1 and 10, L = 64" in wide
    assert " Mamba: mamba, mamba. At most 1,900 iterations" in wide


def test_the_kept_search_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    rates.kept().write_csv(tmp_path / "rates.csv")
    assert (tmp_path / "rates.csv").read_bytes() == rates.FILE.read_bytes()
