"""What a trained model is seen to do: held against models whose mechanism is known."""

import json
from pathlib import Path
from typing import Any, cast

import polars as pl
import pytest
import torch
from torch import Tensor, nn

from recall_arena.cli import main
from recall_arena.inspection import inspect
from recall_arena.mechanism import attribution, lags, looked_at, written
from recall_arena.mechanism_figures import distances
from recall_arena.model import SequenceModel, named
from recall_arena.probes import Sequences, answers, by_distance, by_query, errors, rebinding
from recall_arena.tasks import AssociativeRecall

TASK = AssociativeRecall(vocabulary=8, queries=3, delay=2)
ASKED = Sequences.of(TASK, 12, 400)


class LooksUp(nn.Module):
    """What stands `delay` after the query's first appearance goes to the last position."""

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.argmax(dim=2)
        first = (tokens[:, :-1] == tokens[:, -1:]).int().argmax(dim=1)
        out = x.clone()
        out[:, -1] = x[torch.arange(len(x)), first + TASK.delay]
        return out


def known(*layers: nn.Module) -> SequenceModel:
    """These layers on one-hot tokens; large logits, so that probabilities are 0 and 1."""
    model = SequenceModel(named("attention, attention", vocabulary=8, width=8))
    model.layers, model.norm_f = nn.ModuleList(layers), nn.Identity()
    nn.init.eye_(model.embedding.weight)
    model.lm_head.weight.data = 100 * torch.eye(8)
    return model


class Constant(SequenceModel):
    """It says 5 whatever is asked."""

    def forward(self, tokens: Tensor, where: Tensor | None = None) -> Tensor:
        return nn.functional.one_hot(torch.full((len(tokens),), 5), 8).float()


def test_sequences_say_where_query_and_value_stand() -> None:
    last = ASKED.tokens[:, -1]
    assert (ASKED.at(0) == last).all()
    assert (ASKED.value != last).all()
    assert ((ASKED.tokens[:, :-1] == last[:, None]).sum(dim=1) == 1).all()
    outside = ASKED.at(-1)[ASKED.first == 0]
    assert len(outside)
    assert (outside == -1).all()
    assert (ASKED.at(TASK.delay + 1)[ASKED.first == 9] == -1).all(), "the final query is no filler"


def test_a_rebound_sequence_differs_in_its_value_alone() -> None:
    again = ASKED.rebound()
    changed = again.tokens != ASKED.tokens
    assert changed.sum(dim=1).tolist() == [1] * len(changed)
    assert (changed.int().argmax(dim=1) == ASKED.first + TASK.delay).all()
    assert (again.value != ASKED.query).all()
    assert (again.value != ASKED.value).all()
    assert set(again.value.tolist()) == set(range(8))


def test_a_model_that_looks_up_follows_and_one_that_says_a_constant_stays() -> None:
    binder = known(LooksUp())
    right = answers(binder, ASKED)
    number = len(ASKED.tokens)
    assert (right == ASKED.value).all()
    found = rebinding(binder, ASKED, right)
    assert found == {"asked": number, "follow": number, "stay": 0, "else": 0}
    constant = Constant(named("attention", vocabulary=8, width=8))
    lucky = int((ASKED.value == 5).sum())
    found = rebinding(constant, ASKED, answers(constant, ASKED))
    assert found == {"asked": lucky, "follow": 0, "stay": lucky, "else": 0}
    assert lucky > 10


def test_answers_are_counted_by_query_and_by_distance() -> None:
    answered = torch.where(ASKED.query == 1, ASKED.value, -1)
    queries = by_query(ASKED, answered)
    assert queries["query"].to_list() == [0, 1, 2]
    assert queries["asked"].sum() == len(ASKED.tokens)
    assert queries.filter(pl.col("correct") > 0)["query"].to_list() == [1]
    assert queries["correct"].sum() == int((ASKED.query == 1).sum())
    far = torch.where(12 - ASKED.first > 7, ASKED.value, -1)
    table = by_distance(ASKED, far)
    assert table["distance"].to_list() == list(range(3, 13))
    assert table.filter(pl.col("correct") > 0)["distance"].to_list() == list(range(8, 13))
    _, bins = distances(table)
    assert bins["asked"].sum() == len(ASKED.tokens)
    assert bins["correct"].sum() == table["correct"].sum()


def test_each_wrong_answer_is_counted_once_by_what_it_is() -> None:
    #                0  1  2  3  4  5  6    query 6 at 1, value 0 at 3
    tokens = torch.tensor([[3, 6, 2, 0, 1, 3, 6]]).repeat(7, 1)
    asked = Sequences(tokens, torch.full((7,), 1), delay=2, vocabulary=8)
    answered = torch.tensor([0, 6, 1, 2, 3, 7, 5])
    assert dict(errors(asked, answered).rows()) == {
        "the query itself": 1,
        "the token after the value": 1,
        "the token before the value": 1,
        "the most frequent token": 1,
        "another token of the context": 0,
        "a token that is not in the context": 2,
    }


@pytest.mark.parametrize("layers", [(nn.Identity(), LooksUp()), (LooksUp(), nn.Identity())])
def test_the_value_enters_where_it_stands_or_where_it_was_brought(
    layers: tuple[nn.Module, ...],
) -> None:
    """Looked up by the second layer, it enters at its own position; by the first, at the end."""
    table = attribution(known(*layers), ASKED, 1)
    enters = dict(table.select("offset", "attribution").rows())
    where = TASK.delay if isinstance(layers[1], LooksUp) else None
    assert enters.pop(where) == pytest.approx(1)
    assert enters.values() == pytest.approx([0] * len(enters))
    counts = dict(table.select("offset", "sequences").rows())
    assert counts[None] == counts[0] == counts[2] == len(ASKED.tokens) > counts[3]


@torch.no_grad()
def test_profiles_are_means_of_what_stands_inside() -> None:
    model = SequenceModel(named("mamba, attention(heads=2)", vocabulary=8, width=8)).eval()
    layers = inspect(model, ASKED.tokens)
    rows = torch.arange(len(ASKED.tokens))
    inside = ASKED.first + 3 < 12
    place = (ASKED.first + 3).clamp(max=12)
    weights = layers[1]["weights"].mean(dim=1)
    seen = {row["offset"]: row["weight"] for row in looked_at(model, ASKED).to_dicts()}
    assert seen[3] == pytest.approx(float(weights[rows, -1, place][inside].mean()), rel=1e-5)
    amount = {row["offset"]: row["weight"] for row in written(model, ASKED).to_dicts()}
    delta = layers[0]["Delta"].mean(dim=2)
    assert amount[3] == pytest.approx(float(delta[rows, place][inside].mean()), rel=1e-5)
    back = {row["lag"]: row["weight"] for row in lags(model, ASKED).to_dicts()}
    assert back[2] == pytest.approx(float(weights.diagonal(-2, dim1=1, dim2=2).mean()), rel=1e-5)
    assert set(looked_at(model, ASKED)["layer"]) == {1}
    assert set(written(model, ASKED)["layer"]) == {0}


def trained(folder: Path, model: str, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The address of a run of a few steps whose weights are kept."""
    steps = ("--schedule.steps", "5", "--schedule.context", "12", "--contexts", "12")
    where = ("--store", str(folder), "--json", "--quiet")
    code = main(["train", "--model", model, *steps, *words, *where])
    said = capsys.readouterr()
    assert code == 0, said.err
    return cast(str, json.loads(said.out)["address"])


@pytest.mark.whole
def test_the_command_writes_figures_and_data_of_any_stack(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address = trained(tmp_path / "runs", "gated-delta, attention-rope, mamba", capsys)
    where = ("--store", str(tmp_path / "runs"), "--out", str(tmp_path / "seen"))
    assert main(["inspect", address, *where, "--sequences", "60", "--json"]) == 0
    said: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert {row["layer"] for row in said["attribution"]} == {1, 2}
    assert {row["layer"] for row in said["written"]} == {0, 2}
    names = {"distances", "attribution", "attention", "written", "lags", "map-layer1"}
    files = {path.name for path in (tmp_path / "seen").iterdir()}
    assert files == {f"{name}.{end}" for name in names for end in ("svg", "pdf", "png", "csv")}
    assert main(["inspect", address, *where, "--context", "30"]) == 0
    assert "answers are right where the value is not the query" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--context", "1"], "--context must be at least 2, got 1"),
        (["--sequences", "0"], "--sequences must be at least 1, got 0"),
        (["--sequences", "9" * 9], "together must be at most 4,194,304 tokens"),
    ],
)
def test_what_cannot_be_inspected_is_refused_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    address = trained(tmp_path / "runs", "mamba", capsys)
    where = ("--store", str(tmp_path / "runs"), "--out", str(tmp_path / "seen"))
    assert main(["inspect", address, *where, *words]) == 2
    assert capsys.readouterr().err.strip().endswith(said)
    assert not (tmp_path / "seen").exists()


def test_learned_positions_reach_no_further_than_they_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address = trained(tmp_path / "runs", "transformer-learned", capsys)
    where = ("--store", str(tmp_path / "runs"), "--out", str(tmp_path / "seen"))
    assert main(["inspect", address, *where, "--context", "500"]) == 2
    assert "learned positions reach" in capsys.readouterr().err
    assert not (tmp_path / "seen").exists()


def test_a_run_of_another_task_is_not_inspected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address = trained(tmp_path / "runs", "mamba", capsys, "--task", "induction-heads")
    assert main(["inspect", address, "--store", str(tmp_path / "runs")]) == 2
    assert "this one is induction-heads" in capsys.readouterr().err
