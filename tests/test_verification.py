"""A record that its run made is made again; one that it did not make is found out."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from training_checks import finish

from recall_arena import verification
from recall_arena.cli import main
from recall_arena.evaluation import Contexts
from recall_arena.kernels import native
from recall_arena.model import ModelSpec
from recall_arena.provenance import provenance
from recall_arena.records import Record, Store, address_of
from recall_arena.records.files import to_file
from recall_arena.runs import Checks, Run
from recall_arena.tasks import AssociativeRecall
from recall_arena.training import Schedule
from recall_arena.verification import Verdict, compare, elsewhere, obstacle, verify

RUN = Run(
    AssociativeRecall(vocabulary=6, queries=2),
    ModelSpec(("mamba", "attention"), vocabulary=6, width=4),
    Schedule(rate=0.01, steps=30, context=8, batch=8, warmup=5),
    Checks(every=10, sequences=200),
    Contexts(first=4, last=10, stride=2, sequences=100),
)


@pytest.fixture(scope="module")
def record() -> Record:
    return finish(RUN)[1]


def verdict(record: Record) -> Verdict:
    working = verify(record)
    while True:
        try:
            next(working)
        except StopIteration as end:
            return end.value


def with_outcome(record: Record, **changes: Any) -> Record:
    return replace(record, outcome=replace(record.outcome, **changes))


def answered(record: Record, row: int, by: int, where: str = "contexts") -> Record:
    """With so many more or fewer right answers in a row, and everything that depends on it."""
    tally = getattr(record.outcome, where)
    by_query = [list(queries) for queries in tally.correct_by_query]
    by_query[row][0] += by
    correct = list(tally.correct)
    correct[row] += by
    changed = replace(tally, correct=correct, correct_by_query=by_query)
    return with_outcome(record, **{where: changed})


def foreign(record: Record, **facts: Any) -> Record:
    """As if it had been made on another platform."""
    return replace(record, provenance=replace(record.provenance, **facts))


# The same platform


def test_a_record_is_made_again_to_the_last_bit(record: Record) -> None:
    assert verdict(record) == Verdict(record.address, "identical")
    assert elsewhere(record) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda record: answered(record, 1, 1), "contexts differ"),
        (lambda record: answered(record, 2, 1, "checks"), "checks differ"),
        (lambda record: with_outcome(record, losses=[1.0, 1.0, 1.0]), "losses differ"),
        (lambda record: replace(record, weights="0" * 64), "weights differ"),
        (lambda record: replace(record, cost=replace(record.cost, parameters=1)), "parameters"),
    ],
)
def test_a_record_that_its_run_did_not_make_is_found_out(
    record: Record, change: Callable[[Record], Record], reason: str
) -> None:
    changed = change(record)
    to_file(changed)  # nothing that the record itself could betray
    assert compare(changed, record).kind == "differs"
    assert reason in compare(changed, record).reason


def test_records_of_earlier_versions_are_taken_for_ones_of_the_same_kernels(record: Record) -> None:
    earlier = replace(foreign(record, kernels_build=None, package_build=None), weights=None)
    assert compare(earlier, record) == Verdict(record.address, "identical")


# Another platform


def test_a_record_of_another_instruction_set_is_made_again_within_rounding(
    instruction_set: str,
) -> None:
    made = finish(RUN)[1]
    best = native.instruction_set()
    for other in ("avx2", "baseline"):
        native.choose_instruction_set(other)
        found = verdict(made)
        assert found.kind == ("identical" if other == best else "within rounding"), found


@pytest.mark.parametrize(
    ("facts", "named"),
    [
        ({"kernels": "compiled, neon"}, "made with kernels compiled, neon, here"),
        ({"kernels_build": "f00"}, "made with kernels' build f00, here"),
        ({"machine": "Darwin arm64"}, "made with machine Darwin arm64, here"),
        ({"versions": {"torch": "9", "numpy": "9"}}, "made with torch 9, here"),
        ({"versions": {}}, "made with torch None, here"),
    ],
)
def test_elsewhere_only_what_rounding_leaves_alone_is_compared(
    record: Record, facts: dict[str, Any], named: str
) -> None:
    theirs = foreign(answered(record, 1, 5), **facts)
    found = compare(with_outcome(theirs, losses=[record.outcome.losses[0], 9.0, 9.0]), record)
    assert found.kind == "within rounding"
    assert named in found.reason


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda record: answered(record, 0, 5, "checks"), "the first check has"),
        (
            lambda record: with_outcome(
                record, losses=[record.outcome.losses[0] * 1.01, *record.outcome.losses[1:]]
            ),
            "the first check's mean loss is",
        ),
        (
            lambda record: with_outcome(
                record,
                contexts=replace(record.outcome.contexts, total_repeats=[0, 0, 0, 0]),
            ),
            "the test sequences differ",
        ),
        (lambda record: replace(record, cost=replace(record.cost, state_size=1)), "state_size"),
    ],
)
def test_elsewhere_what_rounding_does_not_explain_is_found_out(
    record: Record, change: Callable[[Record], Record], reason: str
) -> None:
    found = compare(foreign(change(record), kernels="compiled, neon"), record)
    assert found.kind == "differs"
    assert reason in found.reason


# What cannot be made again


def described(record: Record, **parts: Any) -> Record:
    run = {**record.run, **parts}
    return replace(record, run=run, address=address_of(run))


def test_records_of_other_revisions_tasks_and_mixers_are_said_to_be_such(record: Record) -> None:
    model = {**record.run["model"], "layers": ["hyena"]}
    for changed, reason in (
        (described(record, revision=1), "it is of revision 1, and this code of revision"),
        (described(record, model=model), "its run is none that is known here .*hyena"),
        (described(record, task={"kind": "sorting"}), "its run is none that is known here .*sort"),
    ):
        with pytest.raises(ValueError, match=reason):
            next(verify(changed))
    assert obstacle(record) is None


# The command


def test_verify_makes_a_sample_of_a_store_again(
    record: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path)
    store.write(record)
    store.write(described(record, revision=1))
    words = ("verify", "--store", str(tmp_path), "--quiet")
    assert main([*words, "--sample", "9", "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out) == [{"address": record.address, "kind": "identical", "reason": ""}]
    assert "1 of 2 records are of other versions" in said.err
    assert main([*words, record.address[:6]]) == 0
    assert capsys.readouterr().out == f"{record.address} identical\n"


def test_verify_names_what_differs_and_what_cannot_be_read_and_the_code_is_1(
    record: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path)
    store.write(answered(record, 1, 1))
    assert main(["verify", "--store", str(tmp_path), "--quiet"]) == 1
    assert capsys.readouterr().out == f"{record.address} differs: contexts differ\n"
    (tmp_path / f"{'0' * 16}.json").write_text("{")
    assert main(["verify", "--store", str(tmp_path), "--quiet"]) == 1
    assert f"{'0' * 16}.json is not a record" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--sample", "0"], "--sample must be at least 1, got 0"),
        (["--longest", "-1"], "that can be made again"),
        (["0123"], "no record begins with '0123'"),
    ],
)
def test_a_mistake_is_one_line(
    record: Record,
    tmp_path: Path,
    words: list[str],
    reason: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Store(tmp_path).write(record)
    assert main(["verify", *words, "--store", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert reason in said
    assert said.count("\n") == 1


def test_a_record_of_another_revision_that_is_named_is_a_mistake(
    record: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = described(record, revision=1)
    Store(tmp_path).write(old)
    assert main(["verify", old.address, "--store", str(tmp_path)]) == 2
    assert "cannot be made again: it is of revision 1" in capsys.readouterr().err


def test_a_run_that_breaks_off_is_named(
    record: Record,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def broken(run: Run) -> Any:
        raise RuntimeError("no memory")

    Store(tmp_path).write(record)
    monkeypatch.setattr(verification, "Execution", broken)
    assert main(["verify", "--store", str(tmp_path), "--quiet"]) == 1
    assert f"{record.address} failed: RuntimeError: no memory" in capsys.readouterr().err


def test_the_record_names_what_is_compared(record: Record) -> None:
    assert record.provenance.kernels_build == native.build()
    assert record.provenance.package_build == provenance().package_build
