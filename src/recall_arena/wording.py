"""How runs and their numbers are written, the same in claims, tables and captions."""

from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any

import polars as pl

from recall_arena.zoo import look_of

SYMBOLS = {"d": "d", "M": "M", "tau": "τ", "L": "L", "K": "K"}
TOLD_BY = (*SYMBOLS, "shortest", "repeats")
"""What tells settings with one model apart: columns of `outcomes.runs_of`."""

MEASURES = {
    "at_L": "test accuracy at L",
    "below": "test accuracy below L",
    "apart_below": "test accuracy below L where the value is not the query",
    "beyond": "test accuracy from L + 1 to 3L",
    "validation": "validation accuracy at L",
    "steps_99": "iterations to the first check with 99 % validation accuracy",
    "told_apart": "over the checks with 20 to 90 % of all answers right, the mean share of queries "
    "that were answered right at least 80 % or at most 30 % of the time",
    "followed": "of the right answers at L, those that follow where the value is exchanged",
    "on_value": "weight of the final query's attention on the value, at L",
    "on_value_3L": "weight of the final query's attention on the value, at 3L",
    "previous": "weight of the first layer's attention on the token τ back, at L",
    "written": "of what Δ rises by around the query, the part at the value and three tokens after",
    "after_value": "of the wrong answers at L, those that are the token after the value",
    "short_query": "of the wrong answers at L / 8, those that are the query itself",
}
"""Columns of `outcomes.runs_of` by which claims judge runs."""

SEEDS_LISTED = 5
"""Up to so many runs are listed one by one; of more, the extremes are given."""

NO_RUN = "No run is finished."


def percent(share: float | None) -> str:
    """A share for people: 0.4567 -> 45.7 %."""
    return "not tested" if share is None else f"{100 * share:.1f} %"


def limit(share: float) -> str:
    """A threshold for people: 0.9 -> 90 %."""
    return f"{100 * share:g} %"


def iterations(step: float | None) -> str:
    """A number of iterations: 1900 -> 1,900; None and infinity -> never."""
    return "never" if step is None or step == float("inf") else f"{step:,.0f}"


def value_of(column: str, value: float | None) -> str:
    """A value of a column of `outcomes.runs_of`."""
    return iterations(value) if column.startswith(("steps", "solved_at")) else percent(value)


def numbers(runs: pl.DataFrame, column: str) -> list[float]:
    """A column's values, sorted; iterations that were never reached are infinite."""
    filled = runs[column].fill_null(float("inf")) if column.startswith("steps") else runs[column]
    return sorted(map(float, filled.drop_nulls()))


def middle(runs: pl.DataFrame, column: str) -> str:
    """The median over runs: the one statistic that tables, claims and figures quote."""
    found = numbers(runs, column)
    return value_of(column, median(found) if found else None)


def each(runs: pl.DataFrame, column: str) -> str:
    """Every run's value, smallest first; of many runs the smallest and the largest."""
    found = [value_of(column, value).removesuffix(" %") for value in numbers(runs, column)]
    return " / ".join(found) if len(found) <= SEEDS_LISTED else f"{found[0]} to {found[-1]}"


def spread(runs: pl.DataFrame, column: str) -> str:
    """The median and every run's value behind it: 97.1 % (19.2 / 97.1 / 99.9)."""
    found = {value_of(column, value) for value in numbers(runs, column)}
    return (
        middle(runs, column) if len(found) < 2 else f"{middle(runs, column)} ({each(runs, column)})"
    )


def name_of_value(column: str, value: Any) -> str:
    """A column's value: "M = 4", "rate = 0.001", the label of a model, or what was trained."""
    if column == "model":
        return look_of(value).label
    if column == "shortest":
        return "L alone" if value is None else f"lengths from {value}"
    if column == "repeats":
        return "v ≠ q alone" if value is False else "v = q too"
    number = f"{value:g}" if isinstance(value, float) else str(value)
    return f"{SYMBOLS.get(column, column.rpartition('.')[2])} = {number}"


def setting_name(row: Mapping[str, Any], differing: Iterable[str]) -> str:
    """A setting by its model and what tells it from the others: Mamba (d = 8, M = 4)."""
    rest = [name_of_value(name, row[name]) for name in TOLD_BY if name in differing]
    return look_of(row["model"]).label + (f" ({', '.join(rest)})" if rest else "")


def differing(rows: pl.DataFrame) -> list[str]:
    """Which of d, M, tau, L and K have more than one value among these rows.

    And `shortest`, if L alone was trained in some and shorter lengths too in others; `repeats`, if
    only some were trained on values that are their queries.
    """
    names = [name for name in SYMBOLS if name in rows.columns and rows[name].n_unique() > 1]
    if "repeats" in rows.columns and rows["repeats"].drop_nulls().n_unique() > 1:
        names.append("repeats")
    alone = rows["shortest"].null_count() if "shortest" in rows.columns else 0
    return [*names, "shortest"] if 0 < alone < rows.height else names


def by_setting(runs: pl.DataFrame, column: str, among: pl.DataFrame) -> str:
    """What a column is, and every run's value, by M and tau, then the best first.

    Names tell those of `among` apart.
    """
    key, names = ("model", *TOLD_BY), differing(among)
    sign, unit = (1, "") if column.startswith("steps") else (-1, " %")
    groups = sorted(
        runs.group_by(key, maintain_order=True),
        key=lambda group: (group[0][2:4], sign * median(numbers(group[1], column) or [0.0])),
    )
    return "; ".join(
        f"{setting_name(dict(zip(key, values, strict=True)), names)} {each(rows, column)}{unit}"
        for values, rows in groups
    )


def values(runs: pl.DataFrame, column: str) -> str:
    """The values of a column for people: 64; 4, 8 and 16; of more than three 0.001 to 0.03."""
    found = runs[column].drop_nulls().unique().sort().to_list()
    if not found:
        return ""
    *most, last = [f"{value:,}" if isinstance(value, int) else f"{value:g}" for value in found]
    if len(most) > 2:
        return f"{most[0]} to {last}"
    return f"{', '.join(most)} and {last}" if most else last


def seeds(runs: pl.DataFrame, *apart: str) -> str:
    """How many runs a setting has, and each value of the columns `apart`: 1 seed; 1 to 3 seeds."""
    counts = runs.group_by("model", "d", "M", "tau", *apart).len()["len"].unique().sort().to_list()
    number = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
    return f"{number} seed{'' if number == '1' else 's'}"


def settings(runs: pl.DataFrame) -> str:
    """What these runs were asked: d = 8, M = 4, 8 and 16, τ = 1, L = 64, K = 16."""
    return ", ".join(f"{symbol} = {values(runs, name)}" for name, symbol in SYMBOLS.items())


def facts(frame: pl.DataFrame) -> str:
    """What a caption must say of a frame's runs: settings, batches, rates, budgets and seeds."""
    runs = frame.filter(pl.col("kind") == "run")
    if runs.is_empty():
        return NO_RUN
    return (
        f"{settings(runs)}; trained on batches of {values(runs, 'batch')}, rates "
        f"{values(runs, 'rate')}, at most {values(runs, 'budget')} iterations; {seeds(runs)} a "
        "curve, each drawn thin, their median bold."
    )


def made_of(model: str) -> str:
    """What a model is made of: Hybrid-A: mamba, attention."""
    look = look_of(model)
    parts = [*(["learned positions"] if look.positions == "learned" else []), *look.layers]
    return f"{look.label}: {', '.join(parts)}" if parts else look.label


def recipe(runs: pl.DataFrame) -> str:
    """Which models these are, what they were asked, how they were trained, watched and ended."""
    if runs.is_empty():
        return NO_RUN
    models = "; ".join(made_of(model) for model in runs["model"].unique(maintain_order=True))
    late = runs.select(steps=(pl.col("decay") * pl.col("budget")).round().cast(pl.Int64))
    percents = runs.select(solved=100 * pl.col("solved"))
    return (
        f"{settings(runs)}. {models}. At most {values(runs, 'budget')} iterations of "
        f"batches of {values(runs, 'batch')}: AdamW without weight decay, "
        f"{values(runs, 'warmup')} iterations of warm-up, a constant rate, linear to zero over the "
        f"last {values(late, 'steps')} of them, gradients clipped at norm "
        f"{values(runs, 'clip')}. A check on the validation batch every {values(runs, 'every')} "
        f"iterations; {values(runs, 'running')} checks in a row with at least "
        f"{values(percents, 'solved')} % end a run."
    )
