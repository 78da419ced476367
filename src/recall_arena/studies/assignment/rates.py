"""The search of learning rates: at least four rates a setting, all tried, all recorded.

The rate is a confounder: a model that fails at one rate may solve the task at another
(arXiv:2508.19029).  Each setting gets the rate that did best in a search with a seed that no
reported run uses, judged on validation sequences of the training length alone.

A table of trials has a row a search run, with the columns of `frame.runs_of` named in COLUMNS.
"""

from pathlib import Path

import polars as pl

from recall_arena.choosing import ranked
from recall_arena.claims import SETTING
from recall_arena.frame import runs_of

RATES: dict[int, tuple[float, ...]] = {8: (1e-3, 3e-3, 1e-2, 3e-2), 64: (3e-4, 1e-3, 3e-3, 1e-2)}
"""The rates that are tried first at each width; wide models want smaller ones."""

LADDER = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
"""The rates into which a grid may grow, where its best one stands at its edge."""

SEED = 1000
FILE = Path(__file__).with_name("rates.csv")
COLUMNS = (
    *(*SETTING, "K", "L", "rate", "budget", "validation", "ended_by", "steps", "solved_at"),
    *("revision", "address"),
)


def newest(frame: pl.DataFrame) -> pl.DataFrame:
    """The rows of search runs of the newest revision in a frame."""
    own = frame.filter(pl.col("seed") == SEED)
    return own.filter(pl.col("revision") == pl.col("revision").max())


def trials_of(frame: pl.DataFrame) -> pl.DataFrame:
    """The trials among the runs of a frame."""
    return runs_of(frame.filter(pl.col("seed") == SEED)).select(COLUMNS).sort(*SETTING, "rate")


def published() -> pl.DataFrame:
    """The trials whose choice the study uses, as they are kept beside this file."""
    return pl.read_csv(FILE)


def best(trials: pl.DataFrame) -> pl.DataFrame:
    """On each setting the trial that was solved in the fewest iterations, else the most accurate.

    One that diverged cannot be chosen; a setting on which all did has no row.
    """
    return ranked(trials, ["rate"]).unique(SETTING, keep="first", maintain_order=True)


def with_choice(trials: pl.DataFrame) -> pl.DataFrame:
    """The trials with a column `chosen`."""
    return trials.with_columns(chosen=pl.col("address").is_in(best(trials)["address"].to_list()))


def at_an_edge(trials: pl.DataFrame) -> pl.DataFrame:
    """The chosen trials whose rate is the lowest or the highest that was tried on their setting."""
    ends = trials.group_by(SETTING).agg(low=pl.col("rate").min(), high=pl.col("rate").max())
    chosen = best(trials).join(ends, on=SETTING)
    return chosen.filter((pl.col("rate") == pl.col("low")) | (pl.col("rate") == pl.col("high")))


def grid(width: int, tried: pl.DataFrame) -> tuple[float, ...]:
    """The rates to try on a setting: those of its width, and on from an edge that is the best.

    `tried` holds the setting's trials so far; the grid grows once all rates in it were tried.
    """
    rates = RATES[width]
    while True:
        found = tried.filter(pl.col("rate").is_in(rates))
        chosen = best(found)["rate"].to_list()
        if found.height < len(rates) or not chosen:
            return rates
        below = [rate for rate in LADDER if rate < rates[0]]
        above = [rate for rate in LADDER if rate > rates[-1]]
        if chosen[0] == rates[0] and below:
            rates = (below[-1], *rates)
        elif chosen[0] == rates[-1] and above:
            rates = (*rates, above[0])
        else:
            return rates
