"""What a report says of runs that were held against published ones."""

from collections.abc import Sequence

import polars as pl

from recall_arena.claims import SETTING
from recall_arena.dots import Panel, by_setting
from recall_arena.frame import frame_of
from recall_arena.outcomes import runs_of
from recall_arena.reproduction import Reproduction
from recall_arena.studies.study import Picture, Section, Table
from recall_arena.wording import differing, percent, setting_name


def summary(found: Sequence[Reproduction], runs: int) -> str:
    """How many of so many runs are what was published, as far as they go."""
    same = sum(one.identical for one in found)
    lacking = runs - len(found)
    text = f"{same} of {len(found)} runs are the published ones, as far as they go"
    others = sorted({one.other for one in found if one.other})
    if same < len(found):
        furthest = max(one.apart() for one in found)
        text += f"; the others are up to {100 * furthest:.1f} points of accuracy from them"
    if others:
        text += f" (those were made with {others[0]}, where sums round differently)"
    return text + (f"; {lacking} have no published counterpart" if lacking else "")


def section(found: Sequence[Reproduction], published: pl.DataFrame, runs: int) -> Section:
    """Each run beside its counterpart, and on the distribution of all published seeds.

    `published` is the frame of all that is published; of so many `runs` some may be lacking.
    """
    own = runs_of(frame_of([one.record for one in found])).sort(
        "d", "M", "tau", maintain_order=True
    )
    reached = _reached(found, published)
    panel = Panel("as far as both go", reached, "validation", marked=own)
    by_address, names = {one.record.address: one for one in found}, differing(own)
    rows = [_row(by_address[run["address"]], run, names) for run in own.to_dicts()]
    return Section(
        "Held against the published runs",
        "Are these runs what was published, as far as they go?",
        (
            f"{summary(found, runs)}. A run's batches and weights depend on its seed alone and its "
            "rate is constant, so a shorter run is the beginning of a longer one, to the last bit "
            "on the same platform.",
        ),
        pictures=(Picture("reproduced", by_setting([panel], "Beside all published seeds")),),
        tables=(Table("reproduced", "Each run and its counterpart.", pl.DataFrame(rows)),),
    )


def _reached(found: Sequence[Reproduction], published: pl.DataFrame) -> pl.DataFrame:
    """Where all seeds of the counterparts were after as many iterations."""
    alike = [*SETTING, "rate", "shortest", "repeats", "budget", "decay", "revision"]
    common = pl.DataFrame([(one.published.address, one.iterations) for one in found], orient="row")
    common.columns = ["address", "common"]
    wholes = runs_of(frame_of([one.published for one in found])).join(common, on="address")
    checks = published.filter(pl.col("kind") == "check")
    beside = checks.join(wholes.select(*alike, "common"), on=alike, nulls_equal=True)
    beside = beside.filter(pl.col("at") <= pl.col("common")).sort("d", "M", "tau", "at")
    last = beside.group_by(*SETTING, "seed", maintain_order=True).last()
    return last.with_columns(validation=pl.col("correct") / pl.col("asked"))


def _row(one: Reproduction, run: dict[str, object], names: list[str]) -> dict[str, object]:
    here, there = ("" if share is None else percent(share) for share in one.accuracies)
    return {
        "model": setting_name(run, names),
        "seed": run["seed"],
        "iterations": f"{one.record.outcome.steps:,}",
        "published": f"{one.published.outcome.steps:,}",
        "validation": here,
        "published validation": there,
        "equal": _equal(one),
    }


def _equal(one: Reproduction) -> str:
    if one.identical:
        return "all of it" if one.to_the_end else f"up to {one.iterations:,}"
    after = one.record.outcome.checks.at[one.same - 1] if one.same else 0
    return f"not after {after:,}"
