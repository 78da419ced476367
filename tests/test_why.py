"""What the report says of the insides of models: what is measured, decided, shown."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from conftest import ROOT
from made_up import record
from test_inspect import ASKED, TASK, LooksUp, known
from torch import nn

from recall_arena.cli import main
from recall_arena.executors import execute_all
from recall_arena.frame import frame_of
from recall_arena.inspection import inspect
from recall_arena.model import SequenceModel, named
from recall_arena.outcomes import runs_of
from recall_arena.records import Store
from recall_arena.studies import STUDIES, Plan
from recall_arena.studies.assignment import insides, why
from recall_arena.studies.study import Section

LEARNERS = ("transformer-rope", "mamba", "hybrid-a", "hybrid-b")


def test_a_model_that_looks_up_binds_and_takes_the_value_from_where_it_stands() -> None:
    found = insides.insides(known(nn.Identity(), LooksUp()), TASK, 12)
    expected = {"followed": 1.0, "entered": 1.0, "entered_after": 0.0, "short_wrong": 0.0}
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    nothing = {name for name, value in found.items() if value is None}
    assert nothing == set(why.MEASURED) - set(expected), "no attention, no Delta, nothing wrong"


@torch.no_grad()
def test_weights_are_those_of_the_value_and_of_the_final_query() -> None:
    model = SequenceModel(named("transformer-rope", vocabulary=8, width=8)).eval()
    found = insides.insides(model, TASK, 12)
    asked = insides.Sequences.of(TASK, 12, why.SEQUENCES)
    first, second = (layer["weights"][:, 0] for layer in inspect(model, asked.tokens))
    rows, value = torch.arange(len(asked.tokens)), asked.first + TASK.delay
    assert found["value_on_query"] == pytest.approx(float(first[rows, value, asked.first].mean()))
    assert found["on_value"] == pytest.approx(float(second[rows, -1, value].mean()))
    back = first.diagonal(-TASK.delay, dim1=1, dim2=2).mean()
    assert found["previous"] == pytest.approx(float(back), rel=1e-5)
    assert found["written"] is None


@torch.no_grad()
def test_the_part_written_at_the_value_is_a_share_of_what_delta_rises_by() -> None:
    model = SequenceModel(named("hybrid-a", vocabulary=8, width=8)).eval()
    layer, _ = inspect(model, ASKED.tokens)
    profile = []
    for offset in range(-2, TASK.delay + 9):
        place, there = ASKED.places(offset)
        amount = layer["Delta"].mean(dim=2).gather(1, place[:, None])[:, 0]
        profile.append(float(amount[there].mean()))
    rise = torch.tensor(profile) - min(profile)
    expected = rise[2 + TASK.delay : 2 + TASK.delay + 4].sum() / rise.sum()
    assert insides._written(model, ASKED) == pytest.approx(float(expected), rel=1e-4)


def report_of(seeds: int = 20, **measured: float | None) -> list[Section]:
    """The section on runs of all settings, each measured alike."""
    models = (*LEARNERS, "transformer-learned", "transformer-nope")
    records = [
        record(model, seed, tau=tau) for model in models for tau in (1, 5) for seed in range(seeds)
    ]
    table = runs_of(frame_of(records)).with_columns(problem=pl.lit(1))
    rows: dict[str, Any] = dict.fromkeys(why.MEASURED) | measured
    inside = pl.DataFrame(
        [{"address": one.address} | rows for one in records], schema=why.measured().schema
    )
    return why.section(table, inside)


def verdicts(sections: list[Section]) -> dict[str, str | None]:
    return {finding.question: finding.verdict for finding in sections[0].findings}


def test_what_all_runs_do_is_supported_and_what_they_do_not_is_refuted() -> None:
    told = verdicts(report_of(followed=1.0, on_value=0.9, on_value_3L=0.2, previous=0.4))
    assert told["Do they bind the value to the query?"] == "supported"
    assert told["How does the RoPE transformer's second layer find the value?"] == "supported"
    assert told["How does it know which token is the value?"] == "refuted"
    told = verdicts(report_of(followed=0.98))
    assert told["Do they bind the value to the query?"] == "refuted"
    assert set(verdicts(report_of(seeds=3, followed=1.0)).values()) == {"undecided"}


def test_the_break_is_told_by_which_layer_loses_more() -> None:
    kept = {"previous": 0.9, "previous_3L": 0.8, "on_value": 0.9}
    question = why.BREAKS.question
    assert verdicts(report_of(**kept, on_value_3L=0.1))[question] == "supported"
    assert verdicts(report_of(**kept, on_value_3L=0.85))[question] == "refuted"


def test_the_table_has_a_row_a_setting_and_seven_columns() -> None:
    (section,) = report_of(followed=1.0, entered=0.7, entered_after=3.0)
    (table,) = section.tables
    assert table.rows.shape == (12, 7)
    assert set(table.rows["enters at"]) == {"+3: 70.0 %"}
    assert set(table.rows["value on query"]) == {""}
    assert why.section(runs_of(frame_of([])).with_columns(problem=1), why.measured()) == []


@pytest.mark.whole
def test_a_study_s_runs_are_looked_into_where_their_weights_were_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path / "runs")
    every = [one.run for one in STUDIES["assignment"].runs(Plan("smoke", (1,)), store)]
    rope, hybrid = (
        next(run for run in every if run.model.layers == layers)
        for layers in (("attention-rope",) * 2, ("mamba", "attention"))
    )
    list(execute_all([rope], store, keep_weights=True))
    list(execute_all([hybrid], store))
    monkeypatch.setattr(why, "FILE", tmp_path / "insides.csv")
    why.FILE.write_text(",".join(why.measured().columns) + "\nabc" + "," * len(why.MEASURED) + "\n")
    assert main(["study", "explain", "--scale", "smoke", "--store", str(store.folder)]) == 0
    assert capsys.readouterr().out == (
        "1 runs looked into; 1 have no weights: `--keep-weights` keeps them\n"
    )
    assert set(why.measured()["address"]) == {"abc", rope.address}, "other rows stay"
    row = why.measured().row(by_predicate=pl.col("address") == rope.address, named=True)
    assert row["on_value"] is not None
    assert main(["study", "explain", "rates", "--store", str(store.folder)]) == 2


@pytest.mark.whole
def test_what_is_measured_of_published_runs_stands_beside_their_records() -> None:
    published = {record.address for record in Store(ROOT / "results" / "records")}
    assert set(why.measured()["address"]) <= published
