"""The report of the controls: both parts, each with its runs, tables and what the claims say."""

import polars as pl

from recall_arena.claims import SETTING, Finding, decide
from recall_arena.dots import Panel, by_setting
from recall_arena.figures import by_context
from recall_arena.outcomes import runs_of
from recall_arena.rules import standards
from recall_arena.studies.assignment import rates, tables
from recall_arena.studies.assignment.scales import SEARCHED
from recall_arena.studies.assignment.settings import FLOOR
from recall_arena.studies.controls.claims import CLAIMS, WITH
from recall_arena.studies.controls.settings import ALL, CORNER, STRIDE, WIDTH
from recall_arena.studies.study import Picture, Plan, Section, Table
from recall_arena.wording import NO_RUN, middle, name_of_value, recipe, spread
from recall_arena.zoo import look_of

LENGTHS = f"Of the lengths tested {STRIDE}, {2 * STRIDE} and so on to 3L count, for all runs."
KNOWN = (
    "The claims were written before these runs; what the assignment's, beside them, had found was "
    "known."
)


def sections(frame: pl.DataFrame, plan: Plan) -> list[Section]:
    """The report of these rows, whichever of the plan's runs they hold."""
    searched = pl.col("seed") >= SEARCHED
    trials, rows = rates.trials_of(frame), frame.filter(~searched)
    runs = runs_of(rows).sort("seed")
    settings = pl.concat([ALL[part] for part in plan.parts])
    claims = [claim for part in plan.parts for claim in CLAIMS[part]]
    findings = decide(claims, _comparable(runs), settings) if runs.height else {}
    parts = {CORNER: _corner, WIDTH: _width}
    found = []
    for part in plan.parts:
        own = ALL[part].join(runs, on=SETTING, maintain_order="left_right")
        said = tuple(findings[claim.question] for claim in CLAIMS[part] if findings)
        found.append(parts[part](own, rows, said))
    read = Section("How to read this", "What decides a claim?", (standards(claims, runs),))
    return [*found, *([_search(trials)] if trials.height else []), read]


def _comparable(runs: pl.DataFrame) -> pl.DataFrame:
    """Without those at L alone of settings of which not both kinds are there."""
    alone = pl.col("shortest").is_null()
    both = runs.filter(alone).group_by(SETTING).agg(pl.col("repeats").n_unique()).filter(repeats=2)
    kept = runs.filter(alone).join(both, on=SETTING, how="semi", maintain_order="left")
    return pl.concat([kept, runs.filter(~alone)])


def _corner(runs: pl.DataFrame, frame: pl.DataFrame, findings: tuple[Finding, ...]) -> Section:
    recipes, own = runs.filter(WITH), runs.filter(~WITH)
    note = (
        "Here no value is its query, in training, in checks and in tests; all else, the rates too, "
        "is the recipe's at L alone. Accuracies of the recipe's runs are those where the value is "
        f"not the query; their checks have both. {LENGTHS} {KNOWN}"
    )
    panels = (Panel("v = q too", recipes, "apart_below"), Panel("v ≠ q alone", own, "apart_below"))
    lengths = frame.join(own, on="address", how="semi")
    pictures = (
        Picture("corner-runs", by_setting(panels, "Below L, with the corner and without")),
        Picture("corner-context", by_context(lengths, "Without the corner", ["tau"])),
    )
    return Section(
        "Without the corner v = q",
        "Does it matter that one value in sixteen is its own query?",
        (recipe(own), note) if own.height else (NO_RUN,),
        pictures if own.height else (),
        (_with_and_without(runs),) if _comparable(runs).height else (),
        findings,
    )


def _with_and_without(runs: pl.DataFrame) -> Table:
    rows = []
    for (tau, model), both in _comparable(runs).group_by("tau", "model", maintain_order=True):
        pair = [both.filter(WITH), both.filter(~WITH)]
        shown = {
            "learnt": [tables.learnt(own) for own in pair],
            "iterations to 99 %": [middle(own, "steps_99") for own in pair],
            "below L, v ≠ q": [middle(own, "apart_below") for own in pair],
            "L + 1 to 3L, v ≠ q": [middle(own, "apart_beyond") for own in pair],
        }
        name = f"{look_of(model).label} ({name_of_value('tau', tau)})"
        rows.append({"model": name} | {column: " → ".join(two) for column, two in shown.items()})
    caption = (
        "Trained with values that may be their query → with none: runs that learnt the task; "
        "medians over runs."
    )
    return Table("corner", caption, pl.DataFrame(rows))


def _width(runs: pl.DataFrame, frame: pl.DataFrame, findings: tuple[Finding, ...]) -> Section:
    note = (
        "Each iteration's length is drawn from two to L. mamba(state=2) is Mamba with 2 numbers a "
        "channel instead of 16: at d = 64 its scans carry as many numbers as those of Mamba at "
        "d = 8 (its convolutions, as wide as it is, keep more). Of the seeds of "
        f"models with attention the first six were known when the others were added. {LENGTHS} "
        f"{KNOWN}"
    )
    panels = (Panel("at L", runs, "at_L", FLOOR), Panel("beyond L", runs, "beyond"))
    return Section(
        "Width and state",
        "With sixteen queries, what does d = 64 give: width, or state?",
        (recipe(runs), note) if runs.height else (NO_RUN,),
        (Picture("width-runs", by_setting(panels, "Every run")),) if runs.height else (),
        (_by_width(runs),) if runs.height else (),
        findings,
    )


def _by_width(runs: pl.DataFrame) -> Table:
    rows = [
        {
            "model": f"{look_of(model).label} (d = {d})",
            "parameters, state at L": f"{own['parameters'][0]:,}, {own['state'][0]:,}",
            "rate": f"{own['rate'][0]:g}",
            "learnt": tables.learnt(own),
            "at L": spread(own, "at_L"),
            "iterations to 99 %": middle(own, "steps_99"),
            "L + 1 to 3L": middle(own, "beyond"),
        }
        for (model, d), own in runs.group_by("model", "d", maintain_order=True)
    ]
    caption = (
        "Runs that learnt the task; medians over runs, at L with every run or the extremes in "
        "brackets."
    )
    return Table("width", caption, pl.DataFrame(rows))


def _search(trials: pl.DataFrame) -> Section:
    return Section(
        "Learning rates",
        "Which rate does each wide model need?",
        ("By the rule of the assignment's search, on validation sequences of length L alone.",),
        tables=tuple(tables.search(rates.with_choice(trials), "controls-trials")),
    )
