"""The assignment's tables: one row a setting, with n, seeds and intervals; and the summary."""

import statistics

import polars as pl

from recall_arena.studies.assignment.findings import steps
from recall_arena.studies.assignment.rates import RATES, Trial, best
from recall_arena.studies.assignment.results import Result, Results, percent
from recall_arena.studies.assignment.settings import CONTEXT, LONGEST, SETTINGS, Setting
from recall_arena.zoo import ZOO


def details(results: list[Result]) -> pl.DataFrame:
    """Everything measured of each setting, one row each; settings without records are left out."""
    return pl.DataFrame([_row(result) for result in results if result])


def _row(result: Result) -> dict[str, object]:
    setting, records = result.setting, result.records
    low, high = result.interval
    shares = [tally.accuracy_at(CONTEXT) for tally in result.contexts]
    return {
        "model": result.label,
        "d": setting.width,
        "M": setting.queries,
        "τ": setting.delay,
        "seeds": len(records),
        "rate": f"{records[0].run['schedule']['rate']:g}",
        "solved": f"{result.solved} of {len(records)}",
        "steps to solve": steps(result),
        "at L": percent(result.at_training_length),
        "95 % interval": f"{100 * low:.1f} to {100 * high:.1f}",
        "n at L": result.counts([CONTEXT])[1],
        "worst to best seed": f"{100 * min(shares):.1f} to {100 * max(shares):.1f}",
        "below L": percent(result.shorter),
        "L+1 to 3L": percent(result.beyond),
        "at 3L": percent(result.accuracy([LONGEST])),
        "at L, v = q": _repeats(result),
        "parameters": records[0].cost.parameters,
        "state at L": records[0].cost.state_size,
        "seconds a run": round(
            statistics.median(r.cost.training_seconds + r.cost.evaluation_seconds for r in records)
        ),
    }


def _repeats(result: Result) -> str:
    """Right answers among the sequences of length L whose value is the query itself."""
    rows = [
        (
            tally.correct_repeats[tally.at.index(CONTEXT)],
            tally.total_repeats[tally.at.index(CONTEXT)],
        )
        for tally in result.contexts
    ]
    return f"{sum(row[0] for row in rows)} of {sum(row[1] for row in rows)}"


def summary(results: Results) -> pl.DataFrame:
    """The accuracy at L and beyond it, one row a model and one column a task."""
    rows = []
    for model in ZOO:
        row = {"model": ZOO[model].label}
        for setting in SETTINGS:
            column = _column(setting)
            result = Result(setting, tuple(results.records[setting]), 0)
            if setting.model == model:
                row[column] = _brief(result) if result else "not run"
        rows.append(row)
    columns = list(dict.fromkeys(["model", *map(_column, SETTINGS)]))
    return pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String)).fill_null("")


def _brief(result: Result) -> str:
    return f"{percent(result.at_training_length)}, {percent(result.beyond)}"


def _column(setting: Setting) -> str:
    return f"P{setting.problem}: M={setting.queries} τ={setting.delay} d={setting.width}"


def rate_table(trials: list[Trial]) -> pl.DataFrame:
    """The search: a row a setting, the accuracy at each rate, and the rate chosen."""
    rows = []
    every = sorted({rate for tried in RATES.values() for rate in tried})
    for setting in SETTINGS:
        tried = [trial for trial in trials if trial.setting == setting.key]
        if not tried:
            continue
        outcome = {f"{trial.rate:g}": _outcome(trial) for trial in tried}
        rows.append(
            {
                "model": ZOO[setting.model].label,
                "d": setting.width,
                "M": setting.queries,
                "τ": setting.delay,
                **{f"{rate:g}": outcome.get(f"{rate:g}", "") for rate in every},
                "chosen": f"{best(tried).rate:g}",
                "steps": max(trial.steps for trial in tried),
            }
        )
    return pl.DataFrame(rows)


def _outcome(trial: Trial) -> str:
    if trial.solved_at is not None:
        return f"solved at {trial.solved_at:,}"
    return "diverged" if trial.ended_by == "diverged" else percent(trial.accuracy)
