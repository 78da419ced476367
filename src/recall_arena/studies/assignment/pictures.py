"""The assignment's figures, each with its caption and the numbers behind it."""

from collections.abc import Sequence

import polars as pl
from matplotlib.axes import Axes

from recall_arena import figures
from recall_arena.figures import Series, new_figure, share_legend, variant_legend
from recall_arena.intervals import wilson
from recall_arena.studies.assignment.rates import Trial, best
from recall_arena.studies.assignment.results import CHANCE, Result
from recall_arena.studies.assignment.settings import CONTEXT, LONGEST, SETTINGS, VOCABULARY, Setting
from recall_arena.studies.study import Picture

Panel = tuple[str, Sequence[tuple[Result, str, bool]]]
"""A panel's title and its curves: result, variant written in the legend, dashed or not."""


def plain(results: Sequence[Result]) -> list[tuple[Result, str, bool]]:
    """Curves that the model's name alone tells apart."""
    return [(result, "", False) for result in results]


def by_context(name: str, panels: Sequence[Panel], what: str) -> Picture:
    """Accuracy against context length, a panel each."""
    return _picture(name, panels, what, training=False)


def by_iterations(name: str, panels: Sequence[Panel], what: str) -> Picture:
    """Accuracy on the validation batch against iterations, a panel each."""
    return _picture(name, panels, what, training=True)


def by_query(name: str, results: Sequence[Result], columns: int) -> Picture:
    """Each query's accuracy along training, a panel a setting."""
    known = [result for result in results if result]
    figure, panels = new_figure(columns, max(1, -(-len(results) // columns)), height=2.3)
    for panel, result in zip(panels, results, strict=False):
        setting = result.setting
        title = f"{result.label}, M = {setting.queries}, τ = {setting.delay}"
        panel.set_title(title, fontsize=9)
        if result:
            figures.accuracy_by_query(
                panel, result.checks[0], model=result.setting.model, chance=CHANCE
            )
    panels[0].set_ylabel("validation accuracy")
    caption = (
        "Each query's validation accuracy along training (thin) and that of all queries together "
        f"(bold): {_facts(known, training=True)}, the first seed."
    )
    return Picture(name, caption, figure, _numbers([(r, "", False) for r in known], training=True))


def rate_search(name: str, trials: Sequence[Trial]) -> Picture:
    """Validation accuracy at the end of each search run against its rate, a panel a task."""
    groups: dict[str, list[Setting]] = {}
    for setting in SETTINGS:
        title = f"M = {setting.queries}, τ = {setting.delay}, d = {setting.width}"
        groups.setdefault(title, []).append(setting)
    figure, panels = new_figure(3, -(-len(groups) // 3), height=2.5)
    for panel, (title, settings) in zip(panels, groups.items(), strict=False):
        tried = {s.model: [t for t in trials if t.setting == s.key] for s in settings}
        figures.rate_sensitivity(
            panel,
            {
                model: [(t.rate, t.accuracy, t is best(found)) for t in found]
                for model, found in tried.items()
                if found
            },
            chance=CHANCE,
        )
        panel.set_title(title, fontsize=9)
    for panel in panels[len(groups) :]:
        panel.remove()
    for panel in panels[::3]:
        panel.set_ylabel("validation accuracy")
    share_legend(figure, panels[: len(groups)], columns=6)
    caption = (
        f"Every learning rate tried: validation accuracy (n = 1,000 sequences of L = {CONTEXT}) "
        "at the end of the search run, one seed that no other run uses. Large filled markers: "
        "the rate chosen, which is the one that solved the task in the fewest iterations, else "
        f"the most accurate. Dotted: chance, 1/{VOCABULARY}."
    )
    rows = [(t.setting, t.rate, t.accuracy, t.ended_by, t.steps, t.solved_at) for t in trials]
    columns = ["setting", "rate", "accuracy", "ended_by", "steps", "solved_at"]
    return Picture(name, caption, figure, pl.DataFrame(rows, schema=columns, orient="row"))


def _picture(name: str, panels: Sequence[Panel], what: str, *, training: bool) -> Picture:
    columns = min(len(panels), 3)
    height = 4.2 if len(panels) == 1 else 3.2 if len(panels) <= 3 else 2.8
    figure, axes = new_figure(columns, -(-len(panels) // columns), height=height)
    curves = [curve for _, rows in panels for curve in rows if curve[0]]
    for axis, (title, rows) in zip(axes, panels, strict=False):
        series = [
            result.series(training=training, variant=variant, dashed=dashed)
            for result, variant, dashed in rows
            if result
        ]
        _draw(axis, series, training=training)
        axis.set_title(title, fontsize=9)
    for axis in axes[::columns]:
        axis.set_ylabel("validation accuracy" if training else "test accuracy")
    variants = dict.fromkeys((variant, dashed) for _, rows in panels for _, variant, dashed in rows)
    if len(variants) > 1:
        variant_legend(figure, list(variants))
    else:
        share_legend(figure, axes, columns=3 if columns < 3 else 4)
    facts = _facts([result for result, _, _ in curves], training=training)
    return Picture(name, f"{what} {facts}.", figure, _numbers(curves, training=training))


def _draw(axis: Axes, series: list[Series], *, training: bool) -> None:
    if training:
        figures.convergence(axis, series, chance=CHANCE)
    else:
        figures.accuracy_by_context(axis, series, trained=CONTEXT, chance=CHANCE)
        axis.set_xticks(range(0, LONGEST + 1, CONTEXT // 2))


def _facts(results: Sequence[Result], *, training: bool) -> str:
    """What a caption must say: n, seeds, L, M, tau, d, chance, and how bands are to be read."""
    if not results:
        return "no run is finished"
    settings = [result.setting for result in results]
    values = {
        "M": sorted({setting.queries for setting in settings}),
        "τ": sorted({setting.delay for setting in settings}),
        "d": sorted({setting.width for setting in settings}),
    }
    spelled = ", ".join(f"{name} = {', '.join(map(str, v))}" for name, v in values.items())
    seeds = max(len(result.records) for result in results)
    schedule = results[0].records[0].run["schedule"]
    tally = (results[0].checks if training else results[0].contexts)[0]
    per = "check" if training else "length"
    n = f"n = {tally.total[0]:,} sequences a {per}" if tally.total else "no check was reached"
    band = ""
    if not training:
        band = "; band: Wilson 95 % interval" if seeds == 1 else "; line: median; band: all seeds"
    return (
        f"K = {VOCABULARY}, {spelled}; trained at L = {CONTEXT} with batches of "
        f"{schedule['batch']}; "
        f"{n}; {seeds} seed{'s' if seeds > 1 else ''}{band}; dotted: chance, 1/{VOCABULARY}"
    )


def _numbers(curves: Sequence[tuple[Result, str, bool]], *, training: bool) -> pl.DataFrame:
    """The rows behind a figure: a row a model, seed and position, with counts and interval."""
    rows = []
    for result, _, _ in curves:
        setting = result.setting
        for record in result.records:
            tally = record.outcome.checks if training else record.outcome.contexts
            for at, correct, total in zip(tally.at, tally.correct, tally.total, strict=True):
                rows.append(
                    (
                        *(setting.model, setting.width, setting.queries, setting.delay),
                        *(record.run["seed"], at, correct, total, *wilson(correct, total)),
                    )
                )
    position = "iteration" if training else "context"
    columns = ["model", "d", "M", "tau", "seed", position, "correct", "n", "low", "high"]
    return pl.DataFrame(rows, schema=columns, orient="row")
