"""The runs of the controls.  Unlike the rest of the study they need torch."""

import polars as pl

from recall_arena.claims import SETTING
from recall_arena.evaluation import Contexts
from recall_arena.frame import frame_of
from recall_arena.records import Store
from recall_arena.studies.assignment import rates, settings
from recall_arena.studies.assignment.runs import assignment_runs, search_of, setting_run
from recall_arena.studies.assignment.settings import LONGEST, Setting
from recall_arena.studies.controls.settings import (
    COMPARED,
    CORNER,
    OWN,
    SCALES,
    STRIDE,
    WIDTH,
    beside,
    recipe_rates,
)
from recall_arena.studies.study import NamedRun, Plan
from recall_arena.wording import setting_name

CONTEXTS = Contexts(first=STRIDE, last=LONGEST, stride=STRIDE)


def runs(plan: Plan, store: Store) -> list[NamedRun]:
    """The runs of a plan, and those that they are set against; where rates are to be searched, the
    search alone until the store has it."""
    own = _corner(plan) if CORNER in plan.parts else []
    own += _width(plan, store) if WIDTH in plan.parts else []
    others = ((part, beside(plan, part)) for part in plan.parts)
    return own + [
        run for part, other in others if other for run in assignment_runs(other, COMPARED[part])
    ]


def _corner(plan: Plan) -> list[NamedRun]:
    return _at(recipe_rates(), plan, CORNER)


def _width(plan: Plan, store: Store) -> list[NamedRun]:
    efforts = SCALES[plan.scale].efforts[WIDTH]
    searching = [
        found
        for setting in _settings(WIDTH)
        for found in search_of(setting, efforts, store, seeds=plan.seeds, mixed=True)
    ]
    tried = store.read_all(one.run.address for one in searching)
    if len(tried) < len(searching):
        return searching
    return _at(rates.best(rates.trials_of(frame_of(tried))), plan, WIDTH) + searching


def _at(chosen: pl.DataFrame, plan: Plan, part: int) -> list[NamedRun]:
    """A run a setting and seed; a setting whose trials all diverged has no rate, and none."""
    rate_of = dict(zip(chosen.select(SETTING).rows(), chosen["rate"], strict=True))
    how = {"mixed": part == WIDTH, "repeats": part != CORNER}
    found = []
    for setting in _settings(part):
        key = (setting.model, setting.d, setting.M, setting.tau)
        effort = SCALES[plan.scale].efforts[part].runs_of(setting.model)
        shortest = settings.shortest(setting.tau, mixed=part == WIDTH)
        own = {**vars(setting), "shortest": shortest, "repeats": part != CORNER}
        name = setting_name(own, ("d", "M", "tau", "repeats" if part == CORNER else "shortest"))
        found += [
            NamedRun(
                f"{name}, seed {seed}",
                setting_run(setting, rate_of[key], effort, seed, CONTEXTS, **how),
            )
            for seed in effort.of(plan.seeds)
            if key in rate_of
        ]
    return found


def _settings(part: int) -> list[Setting]:
    return [Setting(**row) for row in OWN[part].to_dicts()]
