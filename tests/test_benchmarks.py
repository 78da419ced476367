"""The benchmarks compare like with like: who is timed, how, and what is told."""

import subprocess
import sys
from collections.abc import Callable
from ctypes import Structure
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from kernel_checks import needs_kernels

from benchmarks import block, operations, rows, step, threads
from benchmarks.__main__ import Benchmarks, chosen
from benchmarks.long_pass import CONTENDERS, measured
from benchmarks.measuring import (
    FEWEST_ROUNDS,
    IN_A_ROW,
    TOLERANCE,
    Contender,
    Unavailable,
    compare,
    difference,
    take_turns,
)
from benchmarks.options import Options
from benchmarks.report import Report
from benchmarks.rows import FLOOR, OURS, Setting
from benchmarks.step import SUBJECTS
from benchmarks.tables import tables
from recall_arena.kernels import native

ROOT = Path(__file__).parent.parent
SETTING = Setting("block", "mamba", {"batch": 2, "L": 3})


# Who is timed


def fake(name: str, numbers: dict[str, np.ndarray], note: Callable[[str], object]) -> Contender:
    return Contender(name, lambda: numbers, [{"forward": lambda _: note(name)}])


def numbers(first: float) -> dict[str, np.ndarray]:
    return {"output": np.array([first, 2.0]), "x": np.zeros(3)}


@pytest.mark.parametrize(
    "wrong",
    [
        numbers(1 + 4 * TOLERANCE),
        numbers(np.nan),
        {"output": np.array([1.0, 2.0])},
        {"output": np.array([1.0]), "x": np.zeros(3)},
        {"output": np.array([1.0, 2.0]), "x": np.full(3, 1e-9)},
    ],
)
def test_a_contender_that_disagrees_is_told_and_not_timed(wrong, capsys):
    timed: list[str] = []
    made = {
        OURS: lambda: fake(OURS, numbers(1), timed.append),
        "wrong": lambda: fake("wrong", wrong, timed.append),
        "right": lambda: fake("right", numbers(1 + TOLERANCE), timed.append),
    }
    report = Report()
    rows = compare(SETTING, made, Options(rounds=2), report)

    assert [row.contender for row in rows] == [OURS, "right"]
    assert "wrong" not in timed
    assert [left.contender for left in report.left_out] == ["wrong"]
    assert "wrong: NOT TIMED, disagrees" in capsys.readouterr().err
    assert "wrong left out, disagrees" in "\n".join(tables(report.of("block")))


def test_a_contender_whose_package_is_missing_is_told_and_left_out(capsys):
    def missing() -> Contender:
        raise Unavailable("abacus is not installed")

    report = Report()
    made = {OURS: lambda: fake(OURS, numbers(1), id), "abacus": missing}
    assert len(compare(SETTING, made, Options(rounds=2), report)) == 1
    assert "abacus is not installed" in capsys.readouterr().err


def test_only_wanted_contenders_are_built():
    def never() -> Contender:
        raise AssertionError

    made = {OURS: lambda: fake(OURS, numbers(1), id), "JAX": never}
    rows = compare(SETTING, made, Options(rounds=2, contenders=("mambapy",)), Report())
    assert [row.contender for row in rows] == [OURS]
    assert Options(contenders=("jax",)).wants("JAX, unroll 8")


def test_only_subjects_that_are_asked_for_are_compared():
    report = Report()
    few = {"batch": 1, "rounds": 2, "widths": (8,), "lengths": (4,), "contenders": ("no other",)}
    block.run(Options(subjects=("Gated",), **few), report)
    assert {row.subject for row in report.rows} == {"gated-delta"}
    step.run(Options(subjects=("nope",), **few), report)
    assert {row.subject for row in report.rows} == {"gated-delta", "transformer-nope"}
    assert Options().asks("mamba")
    assert not Options(subjects=("rope",)).asks("mamba")


@pytest.mark.parametrize(
    ("quick", "order", "timed"), [(60.0, "ab" + 4 * "aaaabbbb", 12), (0.0, 5 * "ab", 4)]
)
def test_contenders_take_turns_and_quick_ones_warm_up(quick, order, timed, monkeypatch):
    """A first turn counts for nothing; then a quick one is timed three times in a row."""
    monkeypatch.setattr("benchmarks.measuring.QUICK", quick)
    called: list[str] = []
    both = [fake(name, {}, called.append) for name in "ab"]
    times = take_turns(both, rounds=4, patience=60.0)
    assert "".join(called) == order
    assert len(times["a"].seconds["forward"]) == timed


def test_a_slow_contender_takes_fewer_turns(monkeypatch):
    monkeypatch.setattr("benchmarks.measuring.QUICK", 0.0)
    times = take_turns([fake("a", {}, id)], rounds=9, patience=0.0)
    assert len(times["a"].seconds["forward"]) == FEWEST_ROUNDS


def test_what_is_measured_becomes_rows():
    report, shape = Report(threads=2), SETTING.shape
    made = {name: partial(fake, name, numbers(1), id) for name in (OURS, "other")}
    compare(SETTING, made, Options(rounds=3, threads=2), report)
    first, other = report.of("block")

    assert (first.contender, other.contender) == (OURS, "other")
    for each in (first, other):
        assert (each.shape, each.threads, each.rounds) == (shape, 2, 3 * IN_A_ROW)
        assert 0 < each.low_ms <= each.median_ms <= each.high_ms
    assert first.ratio == 1
    assert other.ratio == pytest.approx(other.median_ms / first.median_ms)


# What is measured


@needs_kernels
def test_the_time_within_kernels_is_told_of_those_who_have_any():
    operation = operations.conv(2, 7, 8)
    made = operations.builders(operation, Options(compile_limit=0), Report())
    del made["JAX"]
    ours, other = take_turns([build() for build in made.values()], rounds=3, patience=60.0).values()

    for stage in ("inference", "forward", "backward", "forward and backward"):
        pairs = list(zip(ours.within[stage], ours.seconds[stage], strict=True))
        assert all(0 < within < whole for within, whole in pairs)
        assert not any(other.within[stage])


@needs_kernels
@pytest.mark.parametrize("name", ["mamba", "transformer-rope"])
def test_one_thread_and_more_take_the_same_steps(name, monkeypatch):
    setting = Setting("threads", name, {"batch": 64, "L": 33, "d": 8})
    workers: list[int] = []
    call = native.call

    def noted(kernel: str, arguments: Structure, threads: int) -> int:
        workers.append(threads)
        return call(kernel, arguments, threads)

    monkeypatch.setattr(native, "call", noted)
    before = torch.get_num_threads()
    more, one = (build() for build in threads.builders(setting, threads=2).values())
    try:
        assert difference(more.results(), one.results()) == 0
        for _ in range(3):
            assert more.chains[0]["step"](None) == one.chains[0]["step"](None)
    finally:
        torch.set_num_threads(before)
    assert workers == 4 * [2, 1]


def test_one_thread_alone_has_nothing_to_be_compared_with(capsys):
    report = Report()
    threads.run(Options(widths=(8,), lengths=(9,)), report)
    assert not report.rows
    assert "--threads 2 adds another" in capsys.readouterr().err


@pytest.mark.parametrize("name", [OURS, "PyTorch, eager"])
def test_a_long_pass_is_measured(name):
    done = measured(name, 128, rounds=2, patience=60.0)
    expected = measured(OURS, 128, rounds=1, patience=60.0)

    assert name in CONTENDERS
    assert done.logits == pytest.approx(expected.logits, abs=1e-5)
    assert len(done.seconds) == 2
    assert done.mebibytes >= 0


# What is asked for


def test_the_command_line_chooses():
    asked = chosen(["step", "--widths", "8", "16", "--rows", "a.jsonl"])
    assert (asked.parts, asked.options.widths, asked.rows) == (("step",), (8, 16), Path("a.jsonl"))
    assert chosen([]) == Benchmarks()


@pytest.mark.parametrize("words", [["stepp"], ["--rounds", "1"], ["--threads", "0"]])
def test_the_command_line_refuses_nonsense(words, capsys):
    with pytest.raises(SystemExit) as ended:
        chosen(words)
    assert ended.value.code == 2
    assert words[-1] in capsys.readouterr().err


@pytest.mark.slow
def test_a_part_runs_from_the_command_line(tmp_path):
    words = ["step", "--widths", "8", "--lengths", "4", "--batch", "2", "--rounds", "2"]
    words += ["--contenders", "eager", "--machine", "abacus", "--rows", str(tmp_path / "all.jsonl")]
    command = [sys.executable, "-m", "benchmarks", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("## step\n\nabacus, 1 thread(s); ")
    kept = rows.read(tmp_path / "all.jsonl")
    assert {each.origin.machine for each in kept} == {"abacus"}
    subjects = [(each.row.subject, each.row.contender) for each in kept]
    timed = {(name, who) for name, who in subjects if who != FLOOR}
    both_ways = {
        (name, f"PyTorch, eager{way}") for name in SUBJECTS for way in ("", ", each token once")
    }
    both_ways.remove(("transformer-learned", "PyTorch, eager, each token once"))
    assert timed == {(name, OURS) for name in SUBJECTS} | both_ways
    assert len(kept) - len(timed) in (0, len(SUBJECTS))  # a floor each, where there is g++
