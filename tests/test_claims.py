"""Claims: the unit is the run, single runs refute, and few seeds decide little."""

import random
from dataclasses import replace
from itertools import permutations
from math import inf

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import record
from scipy.stats import binomtest, fisher_exact, mannwhitneyu, permutation_test, rankdata

from recall_arena.claims import HAS_LEARNT, SETTING, Claim, decide
from recall_arena.frame import frame_of
from recall_arena.intervals import difference, exact, wilson
from recall_arena.outcomes import runs_of
from recall_arena.permutation import holm, rank_test, smallest_p, trend_test
from recall_arena.records import Record
from recall_arena.rules import ENOUGH, Ahead, Every, Harder, Rule
from recall_arena.wording import each, spread

MAMBA, ROPE = pl.col("model") == "mamba", pl.col("model") == "transformer-rope"
CARRIES = Every(
    measure="beyond",
    passes=(pl.col("beyond") >= 0.9) == pl.col("recurrent"),
    threshold="at least 90 %",
    among=HAS_LEARNT,
    condition="runs that learnt the task",
    kinds="recurrent",
)
AHEAD = Ahead("at_L", "accuracy at L", [("M = 1", MAMBA, ROPE)])
LATER = Ahead("steps_99", "iterations", [("M = 1", ROPE, MAMBA)])


def verdict(rule: Rule, records: list[Record]) -> str | None:
    """What a rule says of all settings that these records have."""
    runs = runs_of(frame_of(records))
    claim = Claim("?", "!", pl.lit(value=True), rule)
    return decide([claim], runs, runs.select(SETTING).unique())["?"].verdict


def group(model: str, values: list[float], **rest: int) -> list[Record]:
    """A run for each accuracy at L."""
    return [record(model, seed, at_L=value, **rest) for seed, value in enumerate(values)]


def carrying(model: str, values: list[float], at_L: float = 1.0) -> list[Record]:
    """A run for each accuracy beyond L."""
    return [record(model, seed, at_L=at_L, beyond=v) for seed, v in enumerate(values)]


@pytest.mark.parametrize(
    ("rope", "mamba", "said"),
    [
        ([0.4] * 3, [1.0] * 3, "undecided"),
        ([0.4, 0.4, 0.958], [1.0] * 3, "refuted"),
        ([0.4] * 3, [0.831, 1.0, 1.0], "refuted"),
        ([0.4] * ENOUGH, [1.0] * ENOUGH, "supported"),
        ([0.4] * ENOUGH, [1.0] * (ENOUGH - 1), "undecided"),
    ],
)
def test_a_claim_about_every_run_falls_with_one_and_stands_with_many(rope, mamba, said) -> None:
    runs = carrying("transformer-rope", rope) + carrying("mamba", mamba)
    assert verdict(CARRIES, runs) == said


def test_runs_that_the_claim_is_not_about_do_not_count() -> None:
    failed = carrying("transformer-rope", [0.95] * 3, at_L=0.5)
    assert verdict(CARRIES, failed + carrying("mamba", [1.0] * 20)) == "undecided"


@pytest.mark.parametrize("rule", [CARRIES, AHEAD, LATER])
def test_one_seed_gives_no_verdict(rule: Rule) -> None:
    runs = carrying("transformer-rope", [0.95]) + carrying("mamba", [1.0, 1.0])
    assert verdict(rule, runs) is None


def test_a_setting_without_runs_is_named_and_gives_no_verdict() -> None:
    runs = runs_of(frame_of(carrying("mamba", [1.0] * 3)))
    settings = pl.DataFrame(
        {"model": ["mamba", "hybrid-a"], "d": [8] * 2, "M": [1] * 2, "tau": [1] * 2}
    )
    finding = decide([Claim("?", "!", pl.lit(value=True), CARRIES)], runs, settings)["?"]
    assert finding.verdict is None
    assert finding.comment == "Missing: Hybrid-A."


@pytest.mark.parametrize("runs", [3, 20])
def test_three_against_three_decide_nothing_and_twenty_do(runs: int) -> None:
    better, worse = group("mamba", [0.9] * runs), group("transformer-rope", [0.1] * runs)
    assert verdict(AHEAD, better + worse) == ("undecided" if runs == 3 else "supported")
    worse, better = group("mamba", [0.1] * runs), group("transformer-rope", [0.9] * runs)
    assert verdict(AHEAD, better + worse) == ("undecided" if runs == 3 else "refuted")


@pytest.mark.parametrize(("runs", "said"), [(3, "undecided"), (20, "no difference")])
def test_saturation_is_no_difference_once_there_are_runs_enough(runs: int, said: str) -> None:
    both = group("mamba", [1.0] * runs) + group("transformer-rope", [1.0] * runs)
    assert verdict(AHEAD, both) == said
    many = group("mamba", [1.0] * runs, M=4) + group("mamba", [1.0] * runs, M=16)
    assert verdict(Harder("M"), many) == said


def test_never_is_later_than_any_iteration() -> None:
    rope = [record("transformer-rope", seed, steps_99=None, at_L=0.5) for seed in range(6)]
    mamba = [record("mamba", seed, steps_99=900 + seed) for seed in range(6)]
    assert verdict(LATER, rope + mamba) == "supported"


@pytest.mark.parametrize(
    ("by_queries", "said"),
    [
        ({4: [1.0, 0.99, 0.98], 8: [0.6, 0.5, 0.55], 16: [0.1, 0.2, 0.15]}, "supported"),
        ({4: [0.1, 0.2, 0.15], 8: [0.6, 0.5, 0.55], 16: [1.0, 0.99, 0.98]}, "refuted"),
        ({4: [1.0, 0.2, 0.6], 8: [0.7, 0.1, 1.0], 16: [0.9, 0.3, 0.5]}, "undecided"),
    ],
)
def test_a_trend_looks_at_every_number_of_queries(by_queries, said) -> None:
    runs = [one for m, values in by_queries.items() for one in group("mamba", values, M=m)]
    assert verdict(Harder("M"), runs) == said


@pytest.mark.parametrize(
    ("by_delay", "said"),
    [
        ({1: [500, 510, 520], 2: [900, 910, 920], 3: [1_500, None, None]}, "supported"),
        ({1: [1_500, None, None], 2: [900, 910, 920], 3: [500, 510, 520]}, "refuted"),
        ({1: [None] * 3, 2: [None] * 3, 3: [None] * 3}, "undecided"),
        ({1: [500] * 3, 2: [500] * 3, 3: [500] * 3}, "undecided"),
    ],
)
def test_a_trend_over_delays_counts_never_as_latest(by_delay, said) -> None:
    runs = [
        record("mamba", seed, tau=tau, steps_99=steps, at_L=0.5 if steps is None else 1.0)
        for tau, found in by_delay.items()
        for seed, steps in enumerate(found)
    ]
    assert verdict(Harder("tau", "steps_99"), runs) == said


def test_a_trend_of_iterations_goes_as_far_as_every_budget() -> None:
    """The runs with the longer delay had ten times as long to get there."""
    runs = [
        record("mamba", 10 * tau + seed, tau=tau, steps_99=steps, at_L=0.5, budget=budget)
        for tau, steps, budget in ((1, None, 1_000), (2, 9_000, 10_000))
        for seed in range(6)
    ]
    assert verdict(Harder("tau", "steps_99"), runs) == "undecided"


def comments(rules: dict[str, Rule], records: list[Record]) -> dict[str, str]:
    """What is said of claims that are judged together."""
    runs = runs_of(frame_of(records))
    claims = [Claim(name, "!", pl.lit(value=True), rule) for name, rule in rules.items()]
    found = decide(claims, runs, runs.select(SETTING).unique())
    return {name: f"{one.verdict}: {one.comment}" for name, one in found.items()}


def test_an_undecided_comparison_says_what_power_there_was() -> None:
    runs = group("mamba", [1.0] * 3) + group("transformer-rope", [0.1] * 3)
    assert comments({"one": AHEAD}, runs)["one"] == (
        "undecided: Not told apart: M = 1 (p = 0.1). The claim's p is 0.1, adjusted 0.1. "
        "The smallest that so many seeds could give is 0.1, so that these seeds cannot decide it."
    )


def test_each_further_test_makes_the_same_runs_decide_less_and_claims_about_all_runs_do_not() -> (
    None
):
    """Four runs against four allow p = 2 / 70."""
    runs = group("mamba", [1.0] * 4) + group("transformer-rope", [0.1] * 4)
    unlike = {f"test {i}": AHEAD for i in range(2)}
    assert comments({"test 0": AHEAD, "all": CARRIES}, runs)["test 0"].startswith("supported")
    assert comments(unlike, runs)["test 0"].startswith("undecided")
    assert "p is 0.029, adjusted 0.057." in comments(unlike, runs)["test 1"]


def test_a_claim_of_many_pairs_needs_all_of_them_and_falls_with_one() -> None:
    pairs = [(f"M = {m}", MAMBA & (pl.col("M") == m), ROPE & (pl.col("M") == m)) for m in (4, 8)]
    rule = Ahead("at_L", "accuracy at L", pairs)

    def said(at_8: float) -> str:
        mamba = {4: [0.9] * 5, 8: [at_8] * 5}
        return comments(
            {"both": rule},
            [
                one
                for m, values in mamba.items()
                for one in group("mamba", values, M=m) + group("transformer-rope", [0.5] * 5, M=m)
            ],
        )["both"]

    once = 2 / 252  # five against five
    assert f"p is {once:.2g}, adjusted {once:.2g}." in said(0.9)
    assert said(0.9).startswith("supported: As claimed: M = 4")
    near = "As claimed: M = 4 (p = 0.0079); not told apart: M = 8 (p = 1)."
    assert said(0.5).startswith(f"undecided: {near}")
    assert said(0.1).startswith("refuted: As claimed: M = 4 (p = 0.0079); the reverse: M = 8")
    assert f"p is {2 * once:.2g}, adjusted {2 * once:.2g}." in said(0.1)


def test_runs_that_do_not_count_are_compared_with_none() -> None:
    """The accuracy beyond L is that of runs which learnt the task; without any there is nothing."""
    pairs = [("M = 1", MAMBA, ROPE)]
    rule = Ahead("beyond", "accuracy", pairs, among=HAS_LEARNT, condition="runs that learnt")
    learnt = carrying("mamba", [0.9] * 5) + carrying("transformer-rope", [0.5] * 5)
    lucky = carrying("transformer-rope", [1.0] * 5, at_L=0.5)
    later = [replace(one, address=f"{one.address} again") for one in lucky]
    assert verdict(rule, learnt) == "supported"
    assert verdict(rule, learnt + later) == "supported"
    assert verdict(rule, learnt[:5] + lucky) == "undecided"


def test_holm_s_example_worked_by_hand() -> None:
    """0.01 x 4; 0.02 x 3; 0.03 x 2 = 0.06 as well; 0.04 x 1, but no less than the one before."""
    tests = {"a": 0.04, "b": 0.01, "c": 0.03, "d": 0.02}
    assert holm(tests) == pytest.approx({"b": 0.04, "d": 0.06, "c": 0.06, "a": 0.06})


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_decides_all_that_bonferroni_does_and_keeps_the_order(every: list[float]) -> None:
    tests = {str(i): p for i, p in enumerate(every)}
    adjusted = holm(tests)
    assert adjusted.keys() == tests.keys()
    for name, p in tests.items():
        assert p <= adjusted[name] <= min(1.0, len(tests) * p)
        assert all(adjusted[name] <= adjusted[other] for other in tests if p <= tests[other])


@given(st.lists(st.floats(0, 1), min_size=2, max_size=9), st.floats(0, 1))
def test_a_smaller_p_makes_no_other_test_harder(every: list[float], p: float) -> None:
    tests = {str(i): p for i, p in enumerate(every)}
    before, after = holm(tests), holm({**tests, "0": min(p, tests["0"])})
    assert all(after[name] <= before[name] for name in tests)


@pytest.mark.parametrize(("ones", "others"), [(3, 3), (4, 5)])
def test_the_smallest_p_is_that_of_groups_without_overlap(ones: int, others: int) -> None:
    apart = rank_test([float(i) for i in range(ones)], [float(10 + i) for i in range(others)])
    fisher = fisher_exact([[ones, 0], [0, others]], alternative="greater").pvalue
    assert smallest_p(ones, others) == pytest.approx(apart[1]) == pytest.approx(2 * fisher)


@pytest.mark.parametrize("sizes", [(2, 2), (3, 4), (9, 7)])
def test_the_rank_test_has_the_p_of_scipys_permutations(sizes: tuple[int, int]) -> None:
    """To the last bit, with ties and without: exact, and by the same permutations drawn.

    Whatever the order in which the runs of a group are given.
    """
    draw = random.Random(0)
    for values in (range(30), range(3)):
        one, other = (sorted(float(draw.choice(values)) for _ in range(size)) for size in sizes)
        ranks = rankdata([*one, *other])
        found = permutation_test(
            (ranks[: len(one)], ranks[len(one) :]),
            lambda x, y, axis: x.mean(axis=axis) - y.mean(axis=axis),
            vectorized=True,
            n_resamples=9_999,
            random_state=0,
        )
        for _ in range(3):
            assert rank_test(one, other) == (found.statistic, found.pvalue)
            draw.shuffle(one)
            draw.shuffle(other)


@pytest.mark.parametrize("runs", [2, 6])
def test_the_trend_test_has_the_p_of_scipys_permutations(runs: int) -> None:
    draw = random.Random(0)
    groups = [M for M in (4, 8, 16) for _ in range(runs)]
    early, late = np.nonzero(np.array(groups)[:, None] < np.array(groups))
    for choice in (range(30), range(3)):
        runs_of = [sorted(float(draw.choice(choice)) for _ in range(runs)) for _ in range(3)]
        values = [value for own in runs_of for value in own]
        found = permutation_test(
            (rankdata(values),),
            lambda x, axis: np.sign(x[..., late] - x[..., early]).mean(axis=axis),
            permutation_type="pairings",
            vectorized=True,
            n_resamples=9_999,
            batch=200,
            random_state=0,
        )
        for _ in range(3):
            pairs = draw.sample(list(zip(groups, values, strict=True)), len(groups))
            given = [list(column) for column in zip(*pairs, strict=True)]
            assert trend_test(*given) == (found.statistic, found.pvalue)


@pytest.mark.parametrize("total", [1, 6, 50])
def test_the_exact_interval_is_that_of_clopper_and_pearson(total: int) -> None:
    for count in range(total + 1):
        interval = binomtest(count, total).proportion_ci(0.95, method="exact")
        assert exact(count, total) == pytest.approx((interval.low, interval.high), abs=1e-10)


def test_the_rank_test_is_that_of_mann_and_whitney() -> None:
    one, other = [1.0, 2.5, 7.0, 8.0], [0.5, 3.0, 4.0, 9.0, 10.0]
    assert rank_test(one, other)[1] == pytest.approx(
        mannwhitneyu(one, other, method="exact").pvalue
    )
    assert rank_test([inf, inf, inf], [inf, inf, inf])[1] == 1


def test_the_trend_test_is_an_exact_count_of_arrangements() -> None:
    groups, values = [4, 4, 8, 8, 16, 16], [0.9, 0.8, 0.7, 0.85, 0.1, 0.2]

    def pairs(own: tuple[float, ...]) -> float:
        signs = [
            (own[j] > own[i]) - (own[j] < own[i])
            for i in range(6)
            for j in range(6)
            if groups[j] > groups[i]
        ]
        return sum(signs) / len(signs)

    every = [pairs(own) for own in permutations(values)]
    seen = pairs(tuple(values))
    below = sum(value <= seen for value in every) / len(every)
    trend, p = trend_test(groups, values)
    assert trend == pytest.approx(seen)
    assert p == pytest.approx(2 * below)


def test_the_interval_of_a_difference_is_newcombe_s() -> None:
    """Newcombe (1998), table II, method 10, of 56/70 less 48/80 and of 9/10 less 3/10."""
    assert difference((56, 70), (48, 80)) == pytest.approx((0.0524, 0.3339), abs=1e-4)
    assert difference((9, 10), (3, 10)) == pytest.approx((0.1705, 0.8090), abs=1e-4)


def test_few_runs_leave_wide_intervals() -> None:
    assert exact(3, 3)[0] == pytest.approx(0.025 ** (1 / 3))
    assert exact(ENOUGH, ENOUGH)[0] > 0.8 >= exact(ENOUGH - 1, ENOUGH - 1)[0]
    assert wilson(3, 3)[0] > exact(3, 3)[0]


def test_the_statistic_is_the_median_and_every_seed_stands_beside_it() -> None:
    runs = runs_of(frame_of(group("mamba", [0.19, 0.999, 0.46])))
    assert spread(runs, "at_L") == "46.0 % (19.0 / 46.0 / 99.9)"
    assert (
        each(runs_of(frame_of(group("mamba", [0.1 * i for i in range(8)]))), "at_L")
        == "0.0 to 70.0"
    )
