"""The search of learning rates: rates on a grid, some seeds of each, all tried, all recorded.

The rate is a confounder: a model that fails at one rate may solve the task at another
(arXiv:2508.19029).  Each setting gets the rate that did best in a search with seeds that no
reported run has, judged on validation sequences of the training length alone.

A table of trials has a row a search run, with the columns of `outcomes.runs_of` named in COLUMNS.
"""

from pathlib import Path

import polars as pl

from recall_arena.choosing import points, ranked
from recall_arena.claims import SETTING
from recall_arena.outcomes import runs_of
from recall_arena.studies.assignment import settings
from recall_arena.studies.assignment.scales import PROBLEMS, SEARCHED
from recall_arena.studies.assignment.settings import searched, wanted
from recall_arena.studies.study import Plan

LADDER = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
"""The rates into which a grid may grow, where its best one stands at its edge."""

FILE = Path(__file__).with_name("rates.csv")
COLUMNS = (
    *(*SETTING, "K", "L", "shortest", "rate", "budget", "decay", "seed", "validation"),
    *("ended_by", "steps", "solved_at", "revision", "address"),
)


def newest(frame: pl.DataFrame) -> pl.DataFrame:
    """The rows of the newest revision in a frame."""
    return frame.filter(pl.col("revision") == pl.col("revision").max())


def trials_of(frame: pl.DataFrame) -> pl.DataFrame:
    """The trials among the runs of a frame."""
    found = runs_of(frame.filter(pl.col("seed") >= SEARCHED))
    return found.select(COLUMNS).sort(*SETTING, "rate", "seed")


def kept() -> pl.DataFrame:
    """The trials of all scales that have chosen, as they stand beside this file."""
    return pl.read_csv(FILE, schema_overrides={"shortest": pl.Int64})


def published(plan: Plan) -> pl.DataFrame:
    """Those among them whose choice a plan's runs use.

    On each setting they are of the search at the plan's scale, or, where it has not been made, of
    the published one.
    """
    trials = kept()
    own, other = (
        wanted(trials, searched(Plan(scale, PROBLEMS))).drop("problem")
        for scale in (plan.scale, "published")
    )
    return pl.concat([own, other.join(own, on=SETTING, how="anti")])


def select(frame: pl.DataFrame, plan: Plan) -> pl.DataFrame:
    """The rows of a plan's runs, and of those that stand beside them: `settings.select`."""
    return pl.concat(
        settings.select(frame, own, best(published(own))) for own in settings.with_beside(plan)
    )


def by_rate(trials: pl.DataFrame) -> pl.DataFrame:
    """A row for each setting and rate, over the seeds: the columns of `choosing.points`."""
    return points(trials.with_columns(accuracy="validation"), [*SETTING, "rate"], seeds=1)


def best(trials: pl.DataFrame) -> pl.DataFrame:
    """On each setting the rate that was solved with the most seeds, then the earliest.

    Where none was solved, the most accurate.  A rate at which a run diverged cannot be chosen; a
    setting on which all did has no row.
    """
    return ranked(by_rate(trials), ["rate"]).unique(SETTING, keep="first", maintain_order=True)


def with_choice(trials: pl.DataFrame) -> pl.DataFrame:
    """The trials with a column `chosen`."""
    chosen = best(trials).select(*SETTING, "rate", chosen=pl.lit(value=True))
    marked = trials.join(chosen, on=[*SETTING, "rate"], how="left", maintain_order="left")
    return marked.with_columns(pl.col("chosen").fill_null(value=False))


def at_an_edge(trials: pl.DataFrame) -> pl.DataFrame:
    """The chosen trials whose rate is the lowest or the highest that was tried on their setting."""
    ends = trials.group_by(SETTING).agg(low=pl.col("rate").min(), high=pl.col("rate").max())
    chosen = best(trials).join(ends, on=SETTING)
    return chosen.filter((pl.col("rate") == pl.col("low")) | (pl.col("rate") == pl.col("high")))


def grid(first: tuple[float, ...], seeds: int, tried: pl.DataFrame) -> tuple[float, ...]:
    """The rates to try on a setting: the first ones, and on from an edge that is the best.

    `tried` holds the setting's trials so far; the grid grows once all rates in it were tried with
    all seeds.
    """
    rates = first
    while True:
        found = tried.filter(pl.col("rate").is_in(rates))
        chosen = best(found)["rate"].to_list()
        if found.height < len(rates) * seeds or not chosen:
            return rates
        below = [rate for rate in LADDER if rate < rates[0]]
        above = [rate for rate in LADDER if rate > rates[-1]]
        if chosen[0] == rates[0] and below:
            rates = (below[-1], *rates)
        elif chosen[0] == rates[-1] and above:
            rates = (*rates, above[0])
        else:
            return rates
