"""The assignment's experiments: which model meets which task, at what scale, and their records.

Problem 1   six models, the induction head (M = 1), tau = 1 and tau = 5
Problem 2   Mamba, the RoPE transformer and both hybrids, M = 4, 8, 16
Problem 3   Mamba eight times as wide, M = 4, 8, 16, and M = 16 with tau = 10
"""

from collections.abc import Collection
from dataclasses import dataclass

import polars as pl

from recall_arena.claims import SETTING
from recall_arena.studies.study import Plan
from recall_arena.zoo import ZOO

VOCABULARY = 16
CONTEXT = 64
LONGEST = 3 * CONTEXT
PROBLEMS = (1, 2, 3)
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


@dataclass(frozen=True)
class Scale:
    """How much is spent: seeds, iterations by problem, lengths tested (from the shortest on)."""

    about: str
    seeds: int
    steps: dict[int, int]
    search_steps: dict[int, int]
    first: int | None = None
    stride: int = 1


SCALES = {
    "smoke": Scale(
        "about a minute on two cores: every part runs, nothing is learnt",
        seeds=1,
        steps={1: 200, 2: 200, 3: 30},
        search_steps={1: 50, 2: 50, 3: 10},
        first=CONTEXT // 2,
        stride=CONTEXT // 2,
    ),
    "quick": Scale(
        "10 to 20 minutes on two cores: one seed",
        seeds=1,
        steps={1: 30_000, 2: 30_000, 3: 10_000},
        search_steps={1: 12_000, 2: 30_000, 3: 6_000},
    ),
    "published": Scale(
        "about six hours on two cores: what results/ shows, three seeds",
        seeds=3,
        steps={1: 30_000, 2: 100_000, 3: 30_000},
        search_steps={1: 12_000, 2: 30_000, 3: 6_000},
    ),
    "full": Scale(
        "hours on two cores: five seeds, budgets that outlast the plateau",
        seeds=5,
        steps={1: 60_000, 2: 100_000, 3: 30_000},
        search_steps={1: 60_000, 2: 100_000, 3: 30_000},
    ),
}


def table_of(problems: Collection[int], *, alone: bool = False) -> pl.DataFrame:
    """The settings of these problems; Problem 3 brings what it compares with unless `alone`."""
    own = pl.col("problem").is_in(problems)
    if 3 in problems and not alone:
        own |= (pl.col("problem") == 2) & (pl.col("model") == "mamba")
    return pl.DataFrame(SETTINGS).filter(own)


def on_settings(frame: pl.DataFrame, settings: pl.DataFrame, steps: dict[int, int]) -> pl.DataFrame:
    """The rows of runs by the recipe on these settings with these budgets, and their `problem`."""
    budgets = pl.DataFrame({"problem": list(steps), "budget": list(steps.values())})
    wanted = settings.join(budgets, on="problem")
    recipe = {"task": "associative-recall", "K": VOCABULARY, "L": CONTEXT}
    recipe |= {"optimizer": "adamw", "weight_decay": 0.0, "curriculum": "none"}
    not_of_it = ("shortest", "distance", "extends")  # lengths drawn, near pairs, a run in parts
    own = frame.filter(pl.all_horizontal(pl.col(not_of_it).is_null()), **recipe)
    return own.join(wanted, on=[*SETTING, "budget"])


def select(frame: pl.DataFrame, plan: Plan, rates: pl.DataFrame) -> pl.DataFrame:
    """The rows of a plan's runs, of whatever revision: one a seed, on each setting made alike.

    Of runs made in different ways, those of the newest revision are taken, then those with the
    rate that the search chose, then the most; of two with the same seed the one that was tested
    at more lengths.  `rates` has a row a setting.
    """
    rows = on_settings(frame, table_of(plan.parts), SCALES[plan.scale].steps)
    runs = rows.filter((pl.col("kind") == "run") & (pl.col("seed") < plan.seeds))
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
