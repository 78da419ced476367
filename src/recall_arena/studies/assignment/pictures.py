"""The assignment's figures and their captions, from the rows of its runs."""

import polars as pl

from recall_arena.figures import Drawing, by_context, by_iterations, by_rate, known_queries
from recall_arena.studies.assignment.settings import CONTEXT, VOCABULARY
from recall_arena.studies.study import Picture
from recall_arena.wording import facts, values

FLOOR = (
    "Dash-dotted: a reader that ignores order (it answers q if q stands twice in the context, else "
    f"the most frequent token). Dotted: chance, 1/{VOCABULARY}."
)
CARRIED = (
    "A run that was solved stops, and goes on with its last value in the median; one that diverged "
    "counts as 0 from there on."
)


def problem1(frame: pl.DataFrame) -> list[Picture]:
    """Six models with either delay, the delays on one another, convergence."""
    by_delay = [
        _by_context(
            f"problem1-context-delay{tau}",
            f"Accuracy against context length, delay τ = {tau}",
            frame.filter(pl.col("tau") == tau),
            by_context(frame.filter(pl.col("tau") == tau), ["tau"]),
        )
        for tau in (1, 5)
    ]
    impact = by_context(frame, ["model"], "tau")
    convergence = by_iterations(frame, ["tau"])
    return [
        *by_delay,
        _by_context("problem1-delay", "The impact of the delay, a panel a model", frame, impact),
        _by_iterations("problem1-convergence", "Convergence", frame, convergence),
    ]


def problem2(frame: pl.DataFrame) -> list[Picture]:
    """Accuracy, convergence and the queries known, by M."""
    return [
        _by_context("problem2-context", "By M", frame, by_context(frame, ["M"])),
        _by_iterations("problem2-convergence", "By M", frame, by_iterations(frame, ["M"])),
        _known("problem2-queries", frame, known_queries(frame, ["M"])),
    ]


def problem3(frame: pl.DataFrame) -> list[Picture]:
    """Both widths on one another, both delays on one another, and the queries known."""
    wide = frame.filter(pl.col("d") == 64)
    widths = frame.filter((pl.col("tau") == 1) & (pl.col("model") == "mamba"))
    delays = wide.filter(pl.col("M") == 16)
    return [
        _by_context("problem3-width", "Mamba of both widths", widths, by_context(widths, ["M"], "d")),
        _by_iterations(
            "problem3-convergence", "Mamba of both widths", widths, by_iterations(widths, ["M"], "d")
        ),
        _by_context("problem3-delay", "Both delays", delays, by_context(delays, ["M"], "tau")),
        _by_iterations(
            "problem3-delay-convergence", "Both delays", delays, by_iterations(delays, ["M"], "tau")
        ),
        _known("problem3-queries", wide, known_queries(wide, ["M", "tau"])),
    ]


def search(trials: pl.DataFrame) -> Picture:
    """Every rate that was tried."""
    caption = (
        f"Every learning rate tried: validation accuracy at L = {CONTEXT} when the search run "
        f"ended, after at most {values(trials, 'budget')} iterations; one seed, which no other run "
        "uses. Large filled markers: the rate chosen. A run that diverged shows its last check. "
        f"Dotted: chance, 1/{VOCABULARY}."
    )
    return Picture("rates", caption, by_rate(trials, ["M", "tau", "d"]))


def _by_context(name: str, what: str, frame: pl.DataFrame, drawing: Drawing) -> Picture:
    tested = values(drawing.data, "asked")
    caption = (
        f"{what}: test accuracy against context length. {_facts(frame)}; n = {tested} sequences a "
        f"length, the same for all runs. {FLOOR}"
    )
    return Picture(name, caption, drawing)


def _by_iterations(name: str, what: str, frame: pl.DataFrame, drawing: Drawing) -> Picture:
    caption = (
        f"{what}: accuracy on one validation batch of length L (n = "
        f"{values(drawing.data, 'asked')} sequences, the same for all runs) against iterations. "
        f"{_facts(frame)}. {CARRIED} {FLOOR}"
    )
    return Picture(name, caption, drawing)


def _known(name: str, frame: pl.DataFrame, drawing: Drawing) -> Picture:
    caption = (
        "Queries known along training: the share of the M queries of which at least 90 % are "
        f"answered right in the validation batch (n = {values(drawing.data, 'asked')} sequences, "
        f"about n / M a query). {_facts(frame)}. {CARRIED}"
    )
    return Picture(name, caption, drawing)


def _facts(frame: pl.DataFrame) -> str:
    runs = frame.filter(pl.col("kind") == "run")
    return facts(runs) if runs.height else "No run is finished"
