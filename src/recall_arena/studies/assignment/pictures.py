"""The assignment's figures, from the rows of its runs."""

import polars as pl

from recall_arena.dots import Panel, by_setting
from recall_arena.figures import by_context, by_iterations, by_rate, known_queries
from recall_arena.studies.assignment.settings import FLOOR
from recall_arena.studies.study import Picture
from recall_arena.survival_figures import reached

KNOWN = "Queries known along training"


def overview(runs: pl.DataFrame) -> Picture:
    """Every run of every setting, at L and beyond, from a table of `outcomes.runs_of`."""
    panels = (Panel("at L", runs, "at_L", FLOOR), Panel("beyond L", runs, "beyond"))
    return Picture("overview", by_setting(panels, "Every run"))


def problem1(frame: pl.DataFrame) -> list[Picture]:
    """Six models with either delay, the delays on one another, convergence."""
    impact = by_context(frame, "The impact of the delay, a panel a model", ["model"], "tau")
    return [
        *(
            Picture(
                f"problem1-context-delay{tau}",
                by_context(frame.filter(pl.col("tau") == tau), f"Delay τ = {tau}", ["tau"]),
            )
            for tau in (1, 5)
        ),
        Picture("problem1-delay", impact),
        Picture("problem1-convergence", by_iterations(frame, "Convergence", ["tau"])),
        Picture("problem1-reached", reached(frame, "How soon", ["tau"])),
    ]


def problem2(frame: pl.DataFrame) -> list[Picture]:
    """Accuracy, convergence and the queries known, by M."""
    return [
        Picture("problem2-context", by_context(frame, "By M", ["M"])),
        Picture("problem2-convergence", by_iterations(frame, "Convergence by M", ["M"])),
        Picture("problem2-reached", reached(frame, "How soon", ["M"])),
        Picture("problem2-queries", known_queries(frame, KNOWN, ["M"])),
    ]


def problem3(frame: pl.DataFrame) -> list[Picture]:
    """Both widths on one another, both delays on one another, and the queries known."""
    wide = frame.filter(pl.col("d") == 64)
    late = wide.filter(pl.col("M") == 16)
    near = frame.filter(pl.col("tau") == 1)
    return [
        Picture("problem3-width", by_context(near, "Both widths", ["M"], "d")),
        Picture("problem3-convergence", by_iterations(near, "Both widths", ["M"], "d")),
        Picture("problem3-delay", by_context(late, "Both delays", ["M"], "tau")),
        Picture("problem3-delay-convergence", by_iterations(late, "Both delays", ["M"], "tau")),
        Picture("problem3-queries", known_queries(wide, KNOWN, ["M", "tau"])),
    ]


def mixed(alone: pl.DataFrame, lengths: pl.DataFrame, frame: pl.DataFrame) -> list[Picture]:
    """Runs at L alone beside those at lengths up to L; of the latter, `frame`, all lengths."""
    panels = (Panel("L alone", alone, "at_L", FLOOR), Panel("up to L", lengths, "at_L", FLOOR))
    drawn = [Picture("mixed-runs", by_setting(panels, "Trained at L alone and at lengths up to L"))]
    one, narrow = pl.col("M") == 1, pl.col("d") == 8
    wide = frame.filter(~narrow)
    both = frame.filter(pl.col("model") == "mamba").join(wide, on="M", how="semi")
    for problem, own, title, panel, variant in (
        (1, frame.filter(one), "Lengths up to L", ["tau"], None),
        (2, frame.filter(~one & narrow), "Lengths up to L, by M", ["M"], None),
        (3, both, "Lengths up to L, both widths", ["M", "tau"], "d"),
    ):
        if own.height:
            name = f"mixed-context-problem{problem}"
            drawn.append(Picture(name, by_context(own, title, panel, variant)))
    return drawn


def search(trials: pl.DataFrame) -> Picture:
    """Every rate that was tried."""
    return Picture("rates", by_rate(trials, "Every learning rate tried", ["M", "tau", "d"]))
