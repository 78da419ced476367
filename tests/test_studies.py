"""The assignment's study: the right experiments, at searched rates, and honest verdicts."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ROOT
from recall_arena.studies.assignment.findings import (
    carries_below,
    carries_beyond,
    falls_with_queries,
)
from recall_arena.studies.assignment.results import Result

from recall_arena.records import Cost, Outcome, Provenance, Record, Store, Tally
from recall_arena.runs import from_json
from recall_arena.studies import STUDIES, Plan
from recall_arena.studies.assignment import problem1, problem2, problem3, rates
from recall_arena.studies.assignment.settings import SCALES, SETTINGS, Setting
from recall_arena.zoo import ZOO

STUDY = STUDIES["assignment"]
PUBLISHED = Store(ROOT / "results" / "records")
QUICK = Plan("quick", (1, 2, 3), 1)


def test_the_settings_are_those_of_the_assignment() -> None:
    asked = {(s.problem, s.model, s.queries, s.delay, s.width) for s in SETTINGS}
    one = {(1, model, 1, delay, 8) for model in ZOO for delay in (1, 5)}
    models = ("mamba", "transformer-rope", "hybrid-a", "hybrid-b")
    two = {(2, model, queries, 1, 8) for model in models for queries in (4, 8, 16)}
    three = {(3, "mamba", queries, 1, 64) for queries in (4, 8, 16)} | {(3, "mamba", 16, 10, 64)}
    assert asked == one | two | three


def test_runs_have_the_assignment_s_numbers_and_differ() -> None:
    runs = [named.run for named in STUDY.runs(Plan("full", (1, 2, 3), 5), PUBLISHED)]
    assert len({run.address for run in runs}) == len(runs) == 5 * 28
    for run in runs:
        assert (run.schedule.context, run.schedule.batch, run.model.vocabulary) == (64, 64, 16)
        assert run.contexts.lengths(run.task) == range(run.task.shortest_context, 193)
        assert run.contexts.sequences >= 1000
    learned = [run.model for run in runs if run.model.positions == "learned"]
    assert {model.max_length for model in learned} == {193}


def test_a_problem_alone_brings_what_it_is_compared_with() -> None:
    names = [named.name for named in STUDY.runs(Plan("quick", (3,), 1), PUBLISHED)]
    assert len(names) == 4 + 3
    assert sum("mamba d=8" in name for name in names) == 3


def test_every_setting_has_at_least_four_rates_on_record() -> None:
    tried = Counter(trial.setting for trial in rates.published())
    assert set(tried) == {setting.key for setting in SETTINGS}
    assert min(tried.values()) >= 4


def test_the_kept_search_is_what_its_records_say() -> None:
    assert rates.trials(SCALES["quick"], PUBLISHED) == rates.published()
    assert rates.write(rates.published()) == Path(str(rates.FILE)).read_text()


def test_no_reported_run_has_the_seed_of_the_search() -> None:
    seeds = {named.run.seed for named in STUDY.runs(Plan("full", (1, 2, 3), 5), PUBLISHED)}
    assert rates.SEED not in seeds


def test_the_best_rate_solves_first_or_else_is_most_accurate() -> None:
    def trial(rate: float, accuracy: float, solved_at: int | None) -> rates.Trial:
        return rates.Trial("x", rate, accuracy, "budget", 100, solved_at, "", 1)

    late, early, close = trial(1.0, 1.0, 90), trial(2.0, 0.999, 50), trial(3.0, 0.9, None)
    assert rates.best([close, late, early]) is early
    assert rates.best([trial(4.0, 0.1, None), close]) is close


def trial(rate: float, accuracy: float, ended_by: str) -> rates.Trial:
    return rates.Trial("x", rate, accuracy, ended_by, 100, None, "", 6)


def test_a_trial_that_diverged_is_never_chosen() -> None:
    good, bad = trial(1.0, 0.1, "budget"), trial(2.0, 0.9, "diverged")
    assert rates.best([bad, good]) is good
    with pytest.raises(ValueError, match="empty"):
        rates.best([bad])


def test_the_grid_grows_beyond_an_edge_at_which_the_best_rate_stands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    by_rate = {1e-4: 0.2, 3e-4: 0.6, 1e-3: 0.5, 3e-3: 0.4, 1e-2: 0.3, 3e-2: 0.1}

    def found(setting: Setting, grid: tuple[float, ...], *_: object) -> list[rates.Trial]:
        return [trial(rate, by_rate[rate], "budget") for rate in grid]

    monkeypatch.setattr(rates, "setting_trials", found)
    narrow = next(setting for setting in SETTINGS if setting.width == 8)
    assert rates.grid(narrow, SCALES["quick"], PUBLISHED) == (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)


def test_a_grid_stays_as_it_is_until_all_of_its_rates_were_tried() -> None:
    empty = Store(ROOT / "no such folder")
    for setting in SETTINGS:
        assert rates.grid(setting, SCALES["quick"], empty) == rates.RATES[setting.width]


def test_the_published_quick_results_are_complete_and_belong_to_their_runs() -> None:
    for named in STUDY.runs(QUICK, PUBLISHED):
        record = PUBLISHED.read(named.run.address)
        assert from_json(record.run) == named.run, named.name


@pytest.mark.parametrize("model", ["mamba", "hybrid-a", "hybrid-b", "transformer-rope"])
def test_the_published_induction_heads_are_solved_at_the_training_length(model: str) -> None:
    name = f"{model} d=8 M=1 tau=1 seed=0"
    (named,) = [one for one in STUDY.runs(QUICK, PUBLISHED) if one.name == name]
    outcome = PUBLISHED.read(named.run.address).outcome
    assert outcome.contexts.accuracy_at(64) >= 0.99


def result(
    model: str,
    *,
    at_training: float,
    beyond: float = 0.0,
    shorter: float = 1.0,
    solved_at: int | None = None,
    queries: int = 1,
    delay: int = 1,
    width: int = 8,
) -> Result:
    """A setting's result with one seed, made up from shares of right answers."""
    shares = {32: shorter, 64: at_training, 128: beyond, 192: beyond}
    contexts = tally({at: round(1000 * share) for at, share in shares.items()})
    outcome = Outcome(
        ended_by="budget" if solved_at is None else "solved",
        steps=1000,
        solved_at=solved_at,
        losses=[1.0],
        checks=tally({1000: round(1000 * at_training)}),
        contexts=contexts,
    )
    record = Record(
        address="",
        run={"schedule": {"rate": 0.01, "batch": 64}, "seed": 0},
        outcome=outcome,
        cost=Cost(1, 1, 1.0, 1.0),
        provenance=Provenance({}, "", 1, "", ""),
    )
    return Result(Setting(1, model, queries, delay, width), (record,), budget=1000)


def tally(correct: dict[int, int]) -> Tally:
    """Counts of a thousand sequences at each position."""
    rows = len(correct)
    return Tally(
        at=list(correct),
        total=[1000] * rows,
        correct=list(correct.values()),
        total_by_query=[[1000]] * rows,
        correct_by_query=[[right] for right in correct.values()],
        total_repeats=[0] * rows,
        correct_repeats=[0] * rows,
    )


ROPE_FALLS = result("transformer-rope", at_training=1.0, beyond=0.4, solved_at=900)
MAMBA_CARRIES = result("mamba", at_training=1.0, beyond=0.99, solved_at=300)


@pytest.mark.parametrize(
    ("rows", "verdict"),
    [
        ([ROPE_FALLS, MAMBA_CARRIES], "supported"),
        ([result("transformer-rope", at_training=1.0, beyond=0.95), MAMBA_CARRIES], "refuted"),
        ([ROPE_FALLS, result("hybrid-a", at_training=1.0, beyond=0.5)], "refuted"),
        ([result("transformer-rope", at_training=0.5), MAMBA_CARRIES], "undecided"),
        ([result("transformer-nope", at_training=0.9, beyond=0.95), MAMBA_CARRIES], "undecided"),
    ],
)
def test_carrying_beyond_is_decided_by_models_that_learnt_the_task(rows, verdict) -> None:
    assert carries_beyond(rows, "here").verdict == verdict


@pytest.mark.parametrize(("shorter", "verdict"), [(0.95, "supported"), (0.3, "refuted")])
def test_shorter_contexts_refute_a_model_that_fails_there(shorter, verdict) -> None:
    rows = [result("mamba", at_training=1.0, shorter=shorter)]
    assert carries_below(rows, "here").verdict == verdict


@pytest.mark.parametrize(
    ("few", "many", "verdict"),
    [
        (0.9, 0.2, "supported"),
        (0.2, 0.9, "refuted"),
        (0.5, 0.51, "undecided"),
        (1.0, 1.0, "refuted"),
    ],
)
def test_more_queries_are_judged_beyond_the_intervals(few, many, verdict) -> None:
    rows = [
        result("mamba", at_training=few, queries=4),
        result("mamba", at_training=many, queries=16),
    ]
    assert falls_with_queries(rows).verdict == verdict


@pytest.mark.parametrize(
    ("one", "five", "verdict"),
    [
        ((1.0, 300), (1.0, 900), "supported"),
        ((1.0, 900), (1.0, 300), "refuted"),
        ((1.0, 300), (0.4, None), "supported"),
        ((0.4, None), (0.1, None), "supported"),
        ((0.1, None), (0.4, None), "refuted"),
        ((0.1, None), (0.1, None), "undecided"),
    ],
)
def test_a_delay_is_harder_if_it_costs_iterations_or_accuracy(one, five, verdict) -> None:
    pair = [
        result("mamba", at_training=share, solved_at=steps, delay=delay)
        for (share, steps), delay in ((one, 1), (five, 5))
    ]
    assert problem1.delay_is_harder([(pair[0], pair[1])]).verdict == verdict


@pytest.mark.parametrize(
    ("mamba", "rope", "verdict"),
    [
        (300, 900, "supported"),
        (900, 300, "refuted"),
        (300, None, "supported"),
        (None, 300, "refuted"),
        (None, None, "undecided"),
    ],
)
def test_convergence_compares_the_slowest_with_the_fastest(mamba, rope, verdict) -> None:
    rows = [
        result("mamba", at_training=1.0, solved_at=mamba),
        result("transformer-rope", at_training=1.0, solved_at=rope),
    ]
    assert problem1.mamba_converges_faster(rows, 1).verdict == verdict


@pytest.mark.parametrize(
    ("rope", "mamba", "verdict"),
    [(0.9, 0.2, "supported"), (0.2, 0.9, "refuted"), (0.5, 0.5, "undecided")],
)
def test_attention_and_mamba_are_compared_beyond_the_intervals(rope, mamba, verdict) -> None:
    finding = problem2.attention_recalls_better(
        [result("transformer-rope", at_training=rope)], [result("mamba", at_training=mamba)]
    )
    assert finding.verdict == verdict


@pytest.mark.parametrize(("hybrid", "verdict"), [(0.95, "supported"), (0.5, "refuted")])
def test_a_hybrid_must_keep_up_with_its_better_parent(hybrid, verdict) -> None:
    finding = problem2.hybrids_keep_up(
        {"hybrid-a": [result("hybrid-a", at_training=hybrid)]},
        [result("transformer-rope", at_training=0.9)],
        [result("mamba", at_training=0.1)],
    )
    assert finding.verdict == verdict


@pytest.mark.parametrize(
    ("by_query", "verdict"), [([4, 4, 0, 0], "supported"), ([2, 2, 2, 2], "refuted")]
)
def test_a_staircase_is_queries_known_or_unknown(by_query, verdict) -> None:
    one = result("mamba", at_training=0.5, queries=4)
    checks = Tally([100], [16], [8], [[4] * 4], [by_query], [0], [0])
    outcome = replace(one.records[0].outcome, checks=checks)
    stairs = replace(one, records=(replace(one.records[0], outcome=outcome),))
    assert problem2.learns_one_at_a_time([stairs]).verdict == verdict


@pytest.mark.parametrize(
    ("narrow", "wide", "verdict"),
    [(0.2, 0.9, "supported"), (0.9, 0.2, "refuted"), (0.5, 0.5, "undecided")],
)
def test_width_and_delay_of_problem_three_are_judged_both_ways(narrow, wide, verdict) -> None:
    small = result("mamba", at_training=narrow)
    large = result("mamba", at_training=wide, width=64)
    assert problem3.width_helps([small], [large]).verdict == verdict
    assert problem3.long_delay_is_out_of_reach(large, small).verdict == verdict


def test_one_seed_and_a_spent_budget_are_said_aloud() -> None:
    comment = carries_beyond([ROPE_FALLS, result("mamba", at_training=0.2)], "here").comment
    assert "One seed" in comment
    assert "Not solved within the budget (at most 1,000 iterations): Mamba;" in comment
