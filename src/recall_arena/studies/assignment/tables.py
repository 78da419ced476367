"""The assignment's tables: one row a setting, with the median over runs and every run behind it."""

from typing import Any

import polars as pl

from recall_arena.claims import HAS_LEARNT, SETTING
from recall_arena.studies.study import Table
from recall_arena.wording import middle, name_of_value, percent, spread
from recall_arena.zoo import ZOO, look_of

HEADINGS = {
    "tau": "τ",
    "at_L": "at L",
    "apart_L": "at L, v ≠ q",
    "below": "below L",
    "beyond": "L + 1 to 3L",
    "at_3L": "at 3L",
}
LABELS = {name: look.label for name, look in ZOO.items()}


def details(name: str, runs: pl.DataFrame) -> Table:
    """All that was measured of each setting; `runs` is a table of `frame.runs_of`."""
    rows = [
        {
            **dict(zip(SETTING, (look_of(model).label, *rest), strict=True)),
            "rate": f"{own['rate'][0]:g}",
            "learnt": _learnt(own),
            "at_L": spread(own, "at_L"),
            "iterations to 99 %": spread(own, "steps_99"),
            **{column: middle(own, column) for column in ("apart_L", "below", "beyond", "at_3L")},
            "in the decay": int(own["in_decay"].sum()),
            "parameters": own["parameters"][0],
            "state at L": own["state"][0],
            "seconds a run": round(own.select(pl.median("seconds")).item()),
        }
        for (model, *rest), own in runs.group_by(SETTING, maintain_order=True)
    ]
    caption = (
        "Test accuracy and iterations to 99 % validation accuracy: medians over runs, in brackets "
        "every run. In the decay: runs that reached 99 % only while the rate fell."
    )
    return Table(name, caption, pl.DataFrame(rows).rename(HEADINGS, strict=False))


def summary(runs: pl.DataFrame, settings: pl.DataFrame) -> Table:
    """Runs that learnt the task, median accuracy at L and beyond; task by model."""
    rows = []
    for keys, models in settings.group_by("problem", *SETTING[1:], maintain_order=True):
        spelled = (name_of_value(*pair) for pair in zip(("d", "M", "tau"), keys[1:], strict=True))
        row = {"task": f"P{keys[0]}: {', '.join(spelled)}"}
        for setting in models.rows(named=True):
            own = runs.join(pl.DataFrame([setting]), on=SETTING, how="semi")
            shown = f"{_learnt(own)}: {middle(own, 'at_L')}, {middle(own, 'beyond')}"
            shown = shown.replace(" %", "").replace(" of ", "/") if own.height else "not run"
            row[look_of(setting["model"]).label] = shown
        rows.append(row)
    columns = dict.fromkeys(["task", *settings["model"].replace(LABELS)], pl.String)
    caption = (
        "Runs that learnt the task: then, medians over runs, the test accuracy (in %) at L and "
        "that over the lengths from L + 1 to 3L."
    )
    return Table("summary", caption, pl.DataFrame(rows, schema=columns).fill_null(""))


def every_run(runs: pl.DataFrame) -> Table:
    """A row a run: all that tables and claims are made of."""
    shares = ("at_L", "apart_L", "below", "beyond", "at_3L", "validation")
    steps = ("steps_50", "steps_90", "steps_99", "in_decay", "steps", "ended_by")
    rows = runs.select(
        pl.col("model").replace(LABELS),
        *("d", "M", "tau", "seed", "rate", "budget"),
        *(pl.col(name).map_elements(percent, return_dtype=pl.String) for name in shares),
        *(*steps, "revision", "address"),
    )
    return Table("runs", "One row a run: the unit of all claims above.", rows.rename(HEADINGS))


def search(trials: pl.DataFrame) -> Table:
    """A row a setting: how each rate ended, and which was chosen; in the order of the trials."""
    rates = sorted(trials["rate"].unique())
    rows = []
    for (model, d, M, tau), tried in trials.group_by(SETTING, maintain_order=True):
        outcome = {
            rate: " / ".join(map(_outcome, own.rows(named=True)))
            for (rate,), own in tried.group_by(["rate"], maintain_order=True)
        }
        row = {"model": look_of(model).label, "d": d, "M": M, "τ": tau}
        row |= {f"{rate:g}": outcome.get(rate, "") for rate in rates}
        chosen = ", ".join(f"{rate:g}" for rate in tried.filter("chosen")["rate"].unique())
        rows.append({**row, "chosen": chosen, "iterations at most": max(tried["budget"])})
    caption = "How each rate ended, a seed each: validation accuracy at L, or when it was solved."
    return Table("trials", caption, pl.DataFrame(rows))


def _outcome(trial: dict[str, Any]) -> str:
    if trial["solved_at"] is not None:
        return f"solved at {trial['solved_at']:,}"
    return "diverged" if trial["ended_by"] == "diverged" else percent(trial["validation"])


def _learnt(runs: pl.DataFrame) -> str:
    return f"{runs.filter(HAS_LEARNT).height} of {runs.height}"
