"""The assignment's tables: one row a setting, with the median over runs and every run behind it."""

import polars as pl

from recall_arena.claims import HAS_LEARNT, SETTING
from recall_arena.studies.study import Table
from recall_arena.wording import each, middle, name_of_value, percent, spread
from recall_arena.zoo import ZOO, look_of


def details(name: str, caption: str, runs: pl.DataFrame) -> Table:
    """All that was measured of each setting; `runs` is a table of `frame.runs_of`."""
    groups = runs.group_by(SETTING, maintain_order=True)
    rows = [
        {
            "model": look_of(model).label,
            **{"d": d, "M": M, "τ": tau, "rate": f"{own['rate'][0]:g}"},
            "learnt": _learnt(own),
            "at L": middle(own, "at_L"),
            "every seed": each(own, "at_L"),
            "at L, v ≠ q": middle(own, "apart_L"),
            "below L": middle(own, "below"),
            "L + 1 to 3L": middle(own, "beyond"),
            "at 3L": middle(own, "at_3L"),
            "iterations to 99 %": spread(own, "steps_99"),
            "in the decay": int(own["in_decay"].sum()),
            "end": ", ".join(
                f"{count} {how}" for how, count in own.group_by("ended_by").len().sort("ended_by").rows()
            ),
            "parameters": own["parameters"][0],
            "state at L": own["state"][0],
            "seconds a run": round(own["seconds"].median()),  # type: ignore[arg-type]
        }
        for (model, d, M, tau), own in groups
    ]
    return Table(name, caption, pl.DataFrame(rows))


def summary(runs: pl.DataFrame, settings: pl.DataFrame) -> pl.DataFrame:
    """Runs that learnt the task, median accuracy at L and beyond; model by task."""
    rows: list[dict[str, str]] = []
    for model, look in ZOO.items():
        row = {"model": look.label}
        for task in settings.filter(pl.col("model") == model).rows(named=True):
            own = runs.join(pl.DataFrame([task]), on=SETTING, how="semi")
            shown = f"{_learnt(own)}: {middle(own, 'at_L')}, {middle(own, 'beyond')}"
            row[_column(task)] = shown if own.height else "not run"
        rows.append(row)
    columns = dict.fromkeys(["model", *map(_column, settings.rows(named=True))], pl.String)
    return pl.DataFrame(rows, schema=columns).fill_null("").filter(
        pl.any_horizontal(pl.exclude("model") != "")
    )


def every_run(runs: pl.DataFrame) -> pl.DataFrame:
    """A row a run: all that tables and claims are made of."""
    measured = ("at_L", "apart_L", "below", "beyond", "at_3L", "validation")
    steps = ("steps_50", "steps_90", "steps_99")
    return runs.select(
        pl.col("model").replace_strict({m: look_of(m).label for m in runs["model"].unique()})
        if runs.height
        else "model",
        *("d", "M", "tau", "seed", "rate", "budget", "revision", "address"),
        *(pl.col(name).map_elements(percent, return_dtype=pl.String) for name in measured),
        *(*steps, "steps", "ended_by"),
    )


def search(trials: pl.DataFrame) -> pl.DataFrame:
    """A row a setting: how each rate ended, and which was chosen; in the order of the trials."""
    rates = sorted(trials["rate"].unique())
    rows = []
    for (model, d, M, tau), tried in trials.group_by(SETTING, maintain_order=True):
        outcome = {trial["rate"]: _outcome(trial) for trial in tried.rows(named=True)}
        row = {"model": look_of(model).label, "d": d, "M": M, "τ": tau}
        row |= {f"{rate:g}": outcome.get(rate, "") for rate in rates}
        chosen = ", ".join(f"{rate:g}" for rate in tried.filter("chosen")["rate"])
        rows.append({**row, "chosen": chosen, "iterations at most": max(tried["budget"])})
    return pl.DataFrame(rows)


def _outcome(trial: dict[str, object]) -> str:
    if trial["solved_at"] is not None:
        return f"solved at {trial['solved_at']:,}"
    return "diverged" if trial["ended_by"] == "diverged" else percent(trial["validation"])  # type: ignore[arg-type]


def _learnt(runs: pl.DataFrame) -> str:
    return f"{runs.filter(HAS_LEARNT).height} of {runs.height}"


def _column(task: dict[str, object]) -> str:
    spelled = (name_of_value(name, task[name]) for name in ("M", "tau", "d"))
    return f"P{task['problem']}: {', '.join(spelled)}"
