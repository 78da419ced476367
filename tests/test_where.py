"""Conditions on runs say what they seem to say, and can do nothing else."""

import json
from dataclasses import replace
from typing import Any

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from made_up import kept
from made_up import record as made_up
from test_records import json_values

from recall_arena.cli.command import Mistake
from recall_arena.cli.listing import brief, listed
from recall_arena.cli.where import where
from recall_arena.index import Contents, _table, contents_of
from recall_arena.records import Store, address_of
from recall_arena.records.files import to_json

RUNS = [kept(0), kept(1), kept(2, model="hybrid-a"), made_up("transformer-rope", 3, M=16, at_L=0.5)]
CONTENTS = Contents(_table([(f"{run.address}.json", run) for run in RUNS]), [])
TABLE = listed(CONTENTS)


@pytest.mark.parametrize(
    ("condition", "seeds"),
    [
        ("task.queries == 16 and model == 'transformer-rope'", {3}),
        ("M == 16", {3}),
        ("seed in (0, 2)", {0, 2}),
        ("seed not in [0, 2]", {1, 3}),
        ("0 < seed <= 2", {1, 2}),
        ("not (seed == 1 or seed == 2)", {0, 3}),
        ("seed * 2 + 1 == 5 and seed - 1 > -1", {2}),
        ("schedule.rate / 2 < 0.01 and checks.every == 100", {3}),
        ("accuracy is None", {0, 1, 2}),
        ("accuracy is not None and accuracy >= 0.5", {3}),
        ("recurrent", {0, 1, 2}),
        ("recurrent == False", {3}),
        ("model.layers == 'mamba,attention'", {2}),
        ("contexts.first is None", {0, 1, 2}),
        ("  seed == 1  ", {1}),
        ("True", {0, 1, 2, 3}),
    ],
)
def test_a_condition_chooses_the_runs_that_meet_it(condition: str, seeds: set[int]) -> None:
    assert set(where(TABLE, condition)["seed"]) == seeds


@pytest.mark.parametrize(
    "condition",
    [
        "__import__('os').system('touch /tmp/was-here')",
        "().__class__.__bases__",
        "open('/etc/passwd')",
        "[seed for seed in (1, 2)]",
        "lambda: 1",
        "seed := 3",
        "f'{seed}'",
        "seed if seed else 1",
        "seed[0]",
        "seed ** 9",
        "seed in __import__('os').environ",
        "seed is 3",
        "seed in 3",
        "seed == 1; seed",
        "seed = 1",
        "seed ==",
        "",
        " ",
        "seed == 1\0",
        "(" * 400,
        "not " * 240 + "recurrent x",
        "-" * 900 + "seed",
        "seed == " + "9" * 900,
        "seed == 1e999999 and 'x' < 3",
        "model > 3",
        "seed == 'many'",
        "seed",
        "model and recurrent",
        "x" * 2000,
        b"seed == '\xff'".decode("latin-1"),
    ],
)
def test_anything_else_is_a_mistake_in_one_line(condition: str) -> None:
    with pytest.raises(Mistake) as error:
        where(TABLE, condition)
    assert "\n" not in str(error.value)


def test_an_unknown_column_is_answered_with_the_nearest() -> None:
    with pytest.raises(Mistake, match=r"no column 'task\.querys'; did you mean 'task\.queries'\?"):
        where(TABLE, "task.querys == 1")
    with pytest.raises(Mistake, match=r"did you mean 'accuracy'\?"):
        listed(CONTENTS, sort="acuracy")


def test_runs_are_sorted_with_those_without_a_value_last() -> None:
    up = listed(CONTENTS, sort="accuracy")["seed"].to_list()
    down = listed(CONTENTS, sort="accuracy", descending=True)["seed"].to_list()
    assert up[0] == down[0] == 3
    assert listed(CONTENTS, sort="seed", descending=True)["seed"].to_list() == [3, 2, 1, 0]


def test_fields_of_different_kinds_are_text() -> None:
    values = [kept(0), kept(1), kept(2)]
    for run, extra in zip(values, (3, "three", [1, 2]), strict=True):
        run.run["task"]["depth"] = extra
    table = listed(Contents(_table([(one.address, one) for one in values]), []))
    assert sorted(table["task.depth"]) == ["3", "[1, 2]", "three"]
    assert table.schema["schedule.rate"] == pl.Float64
    assert "task.depth" in brief(table).columns


PARTS = [(p, name) for p, own in RUNS[0].run.items() if isinstance(own, dict) for name in own]
ADDED = [("schedule", "decay_steps"), ("contexts", "at"), ("model", "norm"), ("task", "extra")]


@pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")
@given(
    st.lists(
        st.tuples(st.sampled_from([*PARTS, *ADDED]), st.just("gone") | json_values),
        min_size=1,
        max_size=2,
    )
)
@example([(("schedule", "decay_steps"), None)])
def test_however_a_run_describes_itself_it_is_listed_or_named(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[tuple[str, str], Any]]
) -> None:
    run = json.loads(json.dumps(RUNS[0].run))
    for (part, name), value in changes:
        run[part][name] = value
        if value == "gone":
            del run[part][name]
    record = replace(RUNS[0], run=run, address=address_of(run))
    fields = json.loads(to_json(record))
    del fields["weights"], fields["provenance"]["package_build"]  # as an earlier version wrote it
    folder = tmp_path_factory.mktemp("store")
    (folder / f"{record.address}.json").write_text(json.dumps(fields))

    contents = contents_of(Store(folder))
    table = listed(contents, "seed == 0 and accuracy is None")
    assert brief(table).height + len(contents.damaged) == 1
    assert contents.frame["address"].n_unique() == table.height
