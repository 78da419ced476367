"""The assignment's experiments: which model meets which task, and which records are theirs.

Problem 1   six models, the induction head (M = 1), tau = 1 and tau = 5
Problem 2   Mamba, the RoPE transformer and both hybrids, M = 4, 8, 16
Problem 3   Mamba eight times as wide, M = 4, 8, 16, and M = 16 with tau = 10
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

import polars as pl

from recall_arena.claims import SETTING
from recall_arena.floor import order_free
from recall_arena.studies.assignment.scales import CONTEXT, SCALES, Effort
from recall_arena.studies.study import Plan
from recall_arena.zoo import ZOO

VOCABULARY = 16
LONGEST = 3 * CONTEXT
QUERIES = (4, 8, 16)


@dataclass(frozen=True)
class Setting:
    """A model on a task: one curve of a figure.  A learning rate and a seed make it a run."""

    problem: int
    model: str
    d: int
    M: int
    tau: int


SETTINGS = (
    *(Setting(1, model, d=8, M=1, tau=tau) for tau in (1, 5) for model in ZOO),
    *(
        Setting(2, model, d=8, M=M, tau=1)
        for M in QUERIES
        for model in ("transformer-rope", "mamba", "hybrid-a", "hybrid-b")
    ),
    *(Setting(3, "mamba", d=64, M=M, tau=1) for M in QUERIES),
    Setting(3, "mamba", d=64, M=16, tau=10),
)


def table_of(problems: Collection[int], *, alone: bool = False) -> pl.DataFrame:
    """The settings of these problems; Problem 3 brings what it compares with unless `alone`."""
    own = pl.col("problem").is_in(problems)
    if 3 in problems and not alone:
        own |= (pl.col("problem") == 2) & (pl.col("model") == "mamba")
    return pl.DataFrame(SETTINGS).filter(own)


WAY = (*SETTING, "shortest", "budget", "decay")
"""What tells the runs of one scale from those of another."""


MIXED = pl.col("shortest").is_not_null()
"""Of runs, those at lengths up to L."""

FLOOR = order_free(VOCABULARY, CONTEXT)
"""The accuracy at L of a reader that ignores order."""


def shortest(tau: int, *, mixed: bool) -> int | None:
    """The shortest training length with this delay, or None if all are L."""
    return tau + 1 if mixed else None


def with_efforts(
    settings: pl.DataFrame,
    effort_of: Callable[[int, str], Effort],
    seeds: int | None,
    *,
    mixed: bool,
) -> pl.DataFrame:
    """The settings with the `budget`, `decay`, `first_seed`, `seeds` and `shortest` of each.

    effort_of  what is spent on a problem and model
    seeds      how many each gets, or None for those that `effort_of` gives it
    mixed      whether each iteration's length is drawn from those up to L
    """
    own = [effort_of(*row) for row in settings.select("problem", "model").rows()]
    return settings.with_columns(
        budget=pl.Series([effort.steps for effort in own], dtype=pl.Int64),
        decay=pl.Series([effort.decay for effort in own], dtype=pl.Float64),
        first_seed=pl.Series([effort.first_seed for effort in own], dtype=pl.Int64),
        seeds=pl.Series([seeds or effort.seeds for effort in own], dtype=pl.Int64),
        shortest=pl.Series([shortest(tau, mixed=mixed) for tau in settings["tau"]], dtype=pl.Int64),
    )


def wanted(frame: pl.DataFrame, settings: pl.DataFrame) -> pl.DataFrame:
    """The rows of a frame, or of trials, that are of these settings `with_efforts`."""
    own = frame.join(settings, on=WAY, nulls_equal=True, maintain_order="left")
    first = pl.col("first_seed")
    own = own.filter(pl.col("seed").is_between(first, first + pl.col("seeds") - 1))
    return own.drop("first_seed", "seeds")


def on_settings(
    frame: pl.DataFrame, settings: pl.DataFrame, *, repeats: bool = True
) -> pl.DataFrame:
    """The rows of runs by the recipe on these settings `with_efforts`, and their `problem`.

    `repeats` is whether their values may be their queries, as the recipe says.
    """
    recipe = {"task": "associative-recall", "K": VOCABULARY, "L": CONTEXT}
    recipe |= {"optimizer": "adamw", "weight_decay": 0.0, "curriculum": "none"}
    recipe |= {"repeats": repeats}
    not_of_it = ("distance", "extends")  # near pairs alone, a run in parts
    return wanted(frame.filter(pl.all_horizontal(pl.col(not_of_it).is_null()), **recipe), settings)


def with_beside(plan: Plan) -> list[Plan]:
    """The plan, and that of the scale whose runs stand beside its own."""
    beside = SCALES[plan.scale].beside
    return [plan, *([replace(plan, scale=beside)] if beside else [])]


def asked(plan: Plan) -> pl.DataFrame:
    """The settings of a plan's runs `with_efforts`."""
    scale = SCALES[plan.scale]
    return with_efforts(
        table_of(scale.problems.keys() & plan.parts),
        lambda problem, model: scale.problems[problem].runs_of(model),
        plan.seeds,
        mixed=scale.mixed,
    )


def searched(plan: Plan) -> pl.DataFrame:
    """The settings of a plan's search `with_efforts`."""
    scale = SCALES[plan.scale]
    return with_efforts(
        table_of(scale.problems.keys() & plan.parts, alone=True),
        lambda problem, model: scale.problems[problem].search,
        plan.seeds,
        mixed=scale.mixed,
    )


def select(frame: pl.DataFrame, plan: Plan, rates: pl.DataFrame) -> pl.DataFrame:
    """The rows of a plan's runs, of whatever revision: one a seed, on each setting made alike.

    Of runs made in different ways, those of the newest revision are taken, then those with the
    rate that the search chose, then the most; of two with the same seed the one that was tested
    at more lengths.  `rates` has a row a setting.
    """
    rows = on_settings(frame, asked(plan))
    runs = rows.filter(pl.col("kind") == "run")
    made = ["revision", "rate", "batch", "warmup", "decay", "clip", "every", "solved"]
    chosen = rates.select(*SETTING, "rate", chosen=pl.lit(value=True))
    ways = runs.group_by(*SETTING, *made).len()
    ways = ways.join(chosen, on=[*SETTING, "rate"], how="left")
    best_first = ways.sort(["revision", "chosen", "len", *made], descending=True, nulls_last=True)
    taken = best_first.unique(SETTING, keep="first", maintain_order=True)
    alike = runs.join(taken, on=[*SETTING, *made], how="semi")
    once = alike.sort("tests", "address", descending=True).unique(
        [*SETTING, "seed"], keep="first", maintain_order=True
    )
    own = rows.join(once, on="address", how="semi")
    return own.sort("problem", "tau", "M", "address", "kind", "at")
