"""The assignment's tables: one row a setting, with the median over runs and every run behind it.

None has more than seven columns, so that each can be read on a phone and on paper.
"""

from typing import Any

import polars as pl

from recall_arena.claims import HAS_LEARNT, SETTING
from recall_arena.outcomes import FELL_BACK
from recall_arena.studies.assignment.settings import MIXED
from recall_arena.studies.study import Table
from recall_arena.wording import differing, middle, name_of_value, percent, setting_name, spread
from recall_arena.zoo import look_of

HEADINGS = {
    "at_L": "at L",
    "apart_L": "at L, v ≠ q",
    "below": "below L",
    "beyond": "L + 1 to 3L",
    "at_3L": "at 3L",
}
RUN_STATE = ("parameters", "state")


def accuracies(name: str, runs: pl.DataFrame) -> Table:
    """How accurate each setting is, and where; `runs` is a table of `outcomes.runs_of`."""
    rows = [
        {
            "model": setting,
            "learnt": learnt(own),
            "at_L": spread(own, "at_L"),
            **{column: middle(own, column) for column in ("apart_L", "below", "beyond", "at_3L")},
        }
        for setting, own in _by_setting(runs)
    ]
    caption = "Test accuracy: medians over runs; at L, in brackets, every run or the extremes."
    return Table(name, caption, pl.DataFrame(rows).rename(HEADINGS, strict=False))


def training(name: str, runs: pl.DataFrame) -> Table:
    """How each setting was trained, how soon it learnt, and what it cost."""
    rows = [
        {
            "model": setting,
            "rate": f"{own['rate'][0]:g}",
            "iterations to 50 %": middle(own, "steps_50"),
            "to 99 %": spread(own, "steps_99"),
            "in the decay": int(own["in_decay"].sum()),
            "parameters, state at L": ", ".join(f"{own[column][0]:,}" for column in RUN_STATE),
            "seconds a run": round(own.select(pl.median("seconds")).item()),
        }
        for setting, own in _by_setting(runs)
    ]
    caption = (
        "Iterations to a validation accuracy: medians over runs; to 99 %, in brackets, every run "
        "or the extremes. In the decay: runs that reached 99 % only while the rate fell."
    )
    return Table(f"{name}-training", caption, pl.DataFrame(rows))


def readings(runs: pl.DataFrame) -> Table:
    """Each setting trained at L alone, and at lengths up to L: what was learnt, where, how soon."""
    rows = []
    for setting, own in _by_setting(runs):
        pair = [own.filter(~MIXED), own.filter(MIXED)]
        shown = {
            "learnt": [learnt(part) for part in pair],
            "fell back": [str(part.filter(FELL_BACK).height) for part in pair],
            **{
                column: [middle(part, column) for part in pair]
                for column in ("steps_99", "below", "beyond")
            },
        }
        rows.append({"model": setting} | {name: " → ".join(two) for name, two in shown.items()})
    caption = (
        "Trained at L alone → at lengths up to L: runs that learnt the task at L; those that had "
        "90 % validation accuracy and end far below it; and medians over runs of the iterations "
        "to 99 % validation accuracy at L and of the test accuracy below and beyond it."
    )
    named = HEADINGS | {"steps_99": "iterations to 99 %"}
    return Table("readings", caption, pl.DataFrame(rows).rename(named, strict=False))


def summary(runs: pl.DataFrame, settings: pl.DataFrame) -> Table:
    """Runs that learnt the task, median accuracy at L and beyond; task by model."""
    rows = []
    for keys, models in settings.group_by("problem", *SETTING[1:], maintain_order=True):
        spelled = (name_of_value(*pair) for pair in zip(("d", "M", "tau"), keys[1:], strict=True))
        row = {"task": f"P{keys[0]}: {', '.join(spelled)}"}
        for setting in models.rows(named=True):
            own = runs.join(pl.DataFrame([setting]), on=SETTING, how="semi")
            shown = f"{learnt(own)}: {middle(own, 'at_L')}, {middle(own, 'beyond')}"
            shown = shown.replace(" %", "").replace(" of ", "/") if own.height else "not run"
            row[look_of(setting["model"]).label] = shown
        rows.append(row)
    labels = [look_of(model).label for model in settings["model"].unique(maintain_order=True)]
    columns = dict.fromkeys(["task", *labels], pl.String)
    caption = (
        "1/3: 56.4, 32.0 reads: one of three runs learnt the task; then medians over all runs, the "
        "test accuracy (in %) at L and that over the lengths from L + 1 to 3L."
    )
    return Table("summary", caption, pl.DataFrame(rows, schema=columns).fill_null(""))


def every_run(runs: pl.DataFrame) -> Table:
    """A row a run: what tables and claims are made of."""
    named = pl.Series("model", [setting_name(row, differing(runs)) for row in runs.to_dicts()])
    shares = [
        pl.col(name).map_elements(percent, return_dtype=pl.String) for name in ("at_L", "beyond")
    ]
    rows = runs.with_columns(named).select(
        "model",
        "seed",
        *shares,
        pl.col("steps_99").alias("to 99 %"),
        pl.format("{} after {}", "ended_by", "steps").alias("ended"),
        "address",
    )
    caption = (
        "One row a run: the unit of all claims above. `recall runs export` writes all that is "
        "known of each."
    )
    return Table("runs", caption, rows.rename(HEADINGS, strict=False))


def search(trials: pl.DataFrame, name: str = "trials", what: str = "") -> list[Table]:
    """For each width a row a setting: how each rate ended; in the order of the trials.

    `what` begins the captions.
    """
    caption = (
        "How each rate ended, a seed each: validation accuracy at L, or when it was solved; the "
        "rate that was chosen is marked ✓."
    )
    tables = []
    for (d,), own in trials.group_by("d", maintain_order=True):
        rates = sorted(own["rate"].unique())
        rows = [
            {"model": setting} | {f"{rate:g}": _outcomes(tried, rate) for rate in rates}
            for setting, tried in _by_setting(own)
        ]
        tables.append(Table(f"{name}-d{d}", f"{what}d = {d}. {caption}", pl.DataFrame(rows)))
    return tables


def _outcomes(tried: pl.DataFrame, rate: float) -> str:
    own = tried.filter(rate=rate)
    ends = " / ".join(map(_outcome, own.rows(named=True)))
    return f"✓ {ends}" if own["chosen"].any() else ends


def _outcome(trial: dict[str, Any]) -> str:
    if trial["solved_at"] is not None:
        return f"solved at {trial['solved_at']:,}"
    return "diverged" if trial["ended_by"] == "diverged" else percent(trial["validation"])


def _by_setting(runs: pl.DataFrame) -> list[tuple[str, pl.DataFrame]]:
    """Each setting's name among these, and its rows, in their order."""
    names = [name for name in differing(runs) if name in SETTING]
    return [
        (setting_name(dict(zip(SETTING, keys, strict=True)), names), own)
        for keys, own in runs.group_by(SETTING, maintain_order=True)
    ]


def learnt(runs: pl.DataFrame) -> str:
    """How many runs learnt the task: 19 of 20."""
    return f"{runs.filter(HAS_LEARNT).height} of {runs.height}"
