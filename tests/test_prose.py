"""What people wrote on the published runs: filled in from them, and never outliving them."""

from dataclasses import asdict, replace
from functools import cache
from typing import Any

import polars as pl
import pytest
from conftest import ROOT
from made_up import record

from recall_arena.claims import Finding
from recall_arena.frame import frame_of
from recall_arena.index import contents_of
from recall_arena.outcomes import runs_of
from recall_arena.records import Store
from recall_arena.studies import STUDIES, Plan, Section
from recall_arena.studies.assignment import mixed, prose, settings
from recall_arena.studies.assignment.bullets import BULLETS
from recall_arena.studies.assignment.settings import SETTINGS

PLAN = Plan("published", (1, 2, 3))


RECORDS = ROOT / "results" / "records"


@cache
def published() -> pl.DataFrame:
    """The rows of the published report."""
    return STUDIES["assignment"].select(contents_of(Store(RECORDS)).frame, PLAN)


@pytest.mark.whole
def test_what_was_written_follows_from_the_published_records() -> None:
    """If this fails, numbers have changed under a sentence: read `prose.txt` beside the report."""
    parts = prose.of_store(RECORDS)
    assert list(parts) == ["summary", *BULLETS, "mixed", "why"]
    assert all(parts.values())
    assert "  " not in "".join(map("".join, parts.values()))


def one_setting(**rest: Any) -> prose.Evidence:
    """Four runs of Mamba, M = 4, whose accuracies at L are 0.2, 0.5, 0.995 and 1."""
    records = [
        record("mamba", seed, M=4, at_L=share, **rest)
        for seed, share in enumerate((0.2, 0.5, 0.995, 1.0))
    ]
    finding = Finding("Is it so? Or not?", "h", "d", "supported", "m", "c")
    other = replace(finding, verdict="refuted")
    one, two = ({each.question: each} for each in (finding, other))
    return prose.Evidence(runs_of(frame_of(records)), one, two)


def test_numbers_are_those_of_the_runs() -> None:
    evidence = one_setting()
    runs = evidence.of("mamba", M=4)
    assert runs.learnt == "2 of 4"
    assert runs.share == 0.5
    assert runs.middle("at_L") == "74.8 %"
    assert runs.value("at_L") == pytest.approx(0.7475)
    assert runs.least("at_L") == 0.2
    assert runs.that_learnt.least("at_L") == 0.995
    assert runs.that_did_not.most("at_L") == 0.5
    assert runs.most("at_L") == 1
    assert runs.each("at_L") == "20.0 / 50.0 / 99.5 / 100.0"
    assert evidence.verdict("Is it so?") == "supported"
    assert evidence.verdict("Is it so?", mixed=True) == "refuted"


def test_what_does_not_hold_is_not_said() -> None:
    evidence = one_setting()
    assert evidence.must(True, "one is one") == ""
    with pytest.raises(prose.DoesNotFollow, match="one is two"):
        evidence.must(False, "one is two")
    with pytest.raises(prose.DoesNotFollow, match="runs of Mamba, M = 8"):
        evidence.of("mamba", M=8)
    with pytest.raises(prose.DoesNotFollow, match="runs of Mamba"):
        evidence.of("mamba", M=4, mixed=True)
    with pytest.raises(prose.DoesNotFollow, match="Was it"):
        evidence.verdict("Was it so?")


def report_of(frame: pl.DataFrame, plan: Plan) -> dict[str, Section]:
    return {one.title: one for one in STUDIES["assignment"].sections(frame, plan)}


def test_other_runs_get_no_prose_that_is_not_true_of_them() -> None:
    """As many runs as were published, all of which learnt everything."""
    efforts = settings.asked(PLAN).to_dicts()
    own = {tuple(row[n] for n in ("problem", "model", "d", "M", "tau")): row for row in efforts}
    records = []
    for setting in SETTINGS:
        effort = own[tuple(asdict(setting).values())]
        given = {name: getattr(setting, name) for name in ("model", "d", "M", "tau")}
        seeds = range(effort["first_seed"], effort["first_seed"] + effort["seeds"])
        records += [
            record(seed=seed, **given, steps_99=900, budget=effort["budget"]) for seed in seeds
        ]
    runs = runs_of(frame_of(records))
    with pytest.raises(prose.DoesNotFollow):
        prose.written(runs, mixed.decided(runs))


@pytest.mark.whole
def test_the_published_report_has_what_was_written_and_others_do_not() -> None:
    said = prose.of_store(RECORDS)
    entire = report_of(published(), PLAN)
    assert entire["Summary"].setting[: len(said["summary"])] == tuple(said["summary"])
    index = {answer.name: answer.short for answer in entire["Where is my answer?"].index}
    assert index == {name: said[name][0] for name in BULLETS}
    some = published().filter(pl.col("seed") % 2 == 0)
    assert all(not answer.short for answer in report_of(some, PLAN)["Where is my answer?"].index)
