"""The controls: which model meets which task, what is spent on it, and which records are theirs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import polars as pl

from recall_arena.claims import SETTING
from recall_arena.studies.assignment import rates, settings
from recall_arena.studies.assignment.scales import (
    LATE,
    SEARCHED,
    SLOW,
    THREE_RATES,
    Effort,
    Efforts,
)
from recall_arena.studies.assignment.settings import Setting
from recall_arena.studies.study import Plan
from recall_arena.zoo import ZOO

CORNER, WIDTH = PARTS = (1, 3)
STRIDE = 8
"""The first length tested, and the step to the next; of the assignment's runs no other counts."""

NARROW = "mamba(state=2),mamba(state=2)"
"""At d = 64 its scans carry as many numbers as those of Mamba at d = 8."""

OWN = {
    CORNER: pl.DataFrame([Setting(1, model, d=8, M=1, tau=tau) for tau in (1, 5) for model in ZOO]),
    WIDTH: pl.DataFrame(
        [
            Setting(3, model, d=64, M=16, tau=1)
            for model in (NARROW, "transformer-rope", "hybrid-a", "hybrid-b")
        ]
    ),
}
"""What is trained for each part."""

COMPARED = {
    CORNER: OWN[CORNER],
    WIDTH: pl.DataFrame(
        [
            *(Setting(2, model, d=8, M=16, tau=1) for model in ("mamba", "transformer-rope")),
            Setting(3, "mamba", d=64, M=16, tau=1),
        ]
    ),
}
"""The assignment's settings that it is set against, which `Scale.beside` trains."""

ALL = {
    CORNER: OWN[CORNER],
    WIDTH: pl.concat([COMPARED[WIDTH], OWN[WIDTH]]),
}
"""All settings of each part."""


@dataclass(frozen=True)
class Scale:
    """What it costs, what is spent on each part, and the assignment's plans set against it."""

    about: str
    efforts: dict[int, Efforts]
    beside: dict[int, Plan]


def _efforts(
    steps: int, late: int, seeds: int, fewer: Mapping[str, int], searched: Effort
) -> Efforts:
    runs = Effort(steps + late, seeds, first_seed=200, decay_steps=late)
    apart = {model: replace(runs, seeds=few) for model, few in fewer.items()}
    return Efforts(runs, searched, THREE_RATES, apart)


SCALES = {
    "smoke": Scale(
        "a minute on two cores: every part runs, nothing is learnt, nothing stands beside it",
        {part: _efforts(20, 5, 1, {}, Effort(5, 1, SEARCHED, 0)) for part in PARTS},
        {},
    ),
    "published": Scale(
        "an hour on two cores, and the assignment's runs beside it: seeds that nothing else has",
        {
            CORNER: _efforts(100_000, LATE, 10, dict.fromkeys(SLOW, 5), Effort(0)),
            WIDTH: _efforts(30_000, LATE, 17, {NARROW: 6}, Effort(6_000, 3, SEARCHED, 0)),
        },
        {CORNER: Plan("published", (1,)), WIDTH: Plan("mixed", (2, 3))},
    ),
}


def beside(plan: Plan, part: int) -> Plan | None:
    """The assignment's plan that this part is set against."""
    found = SCALES[plan.scale].beside.get(part)
    return found and replace(found, seeds=plan.seeds)


def recipe_rates() -> pl.DataFrame:
    """The rates that the search at L alone chose: a row a setting."""
    return rates.best(rates.published(Plan("published", (CORNER,))))


def size(plan: Plan) -> int:
    """How many runs a plan has, before a grid of rates grows."""
    return sum(_size(plan, part) for part in plan.parts)


def _size(plan: Plan, part: int) -> int:
    efforts, other = SCALES[plan.scale].efforts[part], beside(plan, part)
    own = sum(len(efforts.runs_of(model).of(plan.seeds)) for model in OWN[part]["model"])
    compared = 0 if other is None else _compared(settings.asked(other), part)["seeds"].sum()
    grid = sum(len(efforts.rates[d]) for d in OWN[part]["d"]) if part == WIDTH else 0
    return own + int(compared) + grid * len(efforts.search.of(plan.seeds))


def _compared(rows: pl.DataFrame, part: int) -> pl.DataFrame:
    return rows.join(COMPARED[part], on=SETTING, how="semi", maintain_order="left")


def select(frame: pl.DataFrame, plan: Plan) -> pl.DataFrame:
    """The rows of a plan's runs, its search's, and of those that they are set against."""
    tested = pl.col("kind").ne("test") | pl.col("at").mod(STRIDE).eq(0)
    frame = frame.filter(tested)
    found = []
    for part in plan.parts:
        chosen, other = recipe_rates(), beside(plan, part)
        if part == WIDTH:
            tried = _of(frame, plan, part, searched=True)
            chosen = rates.best(rates.trials_of(tried))
            found.append(tried)
        runs = _of(frame, plan, part, searched=False)
        found.append(runs.join(chosen, on=[*SETTING, "rate"], how="semi", maintain_order="left"))
        if other is not None:
            best = rates.best(rates.published(other))
            found.append(_compared(settings.select(frame, other, best), part))
    return pl.concat(found, how="diagonal")


def _of(frame: pl.DataFrame, plan: Plan, part: int, *, searched: bool) -> pl.DataFrame:
    efforts = SCALES[plan.scale].efforts[part]

    def effort_of(_: int, model: str) -> Effort:
        return efforts.search if searched else efforts.runs_of(model)

    asked = settings.with_efforts(OWN[part], effort_of, plan.seeds, mixed=part == WIDTH)
    return rates.newest(settings.on_settings(frame, asked, repeats=part != CORNER))
