"""The benchmarks compare like with like: equal contenders, counted work, honest refusals."""

import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from ctypes import Structure
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from kernel_checks import needs_kernels

from benchmarks import block, operations, ours, roofline, rows, step, threads
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
from benchmarks.rows import FLOOR, OURS, OUTSIDE, Setting
from benchmarks.tables import tables
from benchmarks.torch_mixers import eager
from recall_arena.evaluation import held_out
from recall_arena.kernels import native
from recall_arena.model import SequenceModel, named
from recall_arena.tasks import AssociativeRecall
from recall_arena.training import Schedule
from recall_arena.zoo import ZOO

ROOT = Path(__file__).parent.parent
SETTING = Setting("block", "mamba", {"batch": 2, "L": 3})
TASK = AssociativeRecall(queries=4)

needs_jax = pytest.mark.skipif(find_spec("jax") is None, reason="JAX is not installed")


# JAX, in a process of its own: once it has computed, its process must not be forked


@pytest.fixture(scope="module")
def child() -> Iterator[ProcessPoolExecutor]:
    """A fresh process; it compiles fast rather than fast code."""
    flags = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    with (
        mock.patch.dict(os.environ, {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}),
        ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool,
    ):
        yield pool


def error_in_training(name: str, unroll: int) -> float:
    """How far JAX's loss and gradients are from ours."""
    from benchmarks import jax_contenders, jax_training

    torch.manual_seed(0)
    spec = named(name, vocabulary=16, width=8, longest_context=27)
    model, batch = SequenceModel(spec), TASK.sample(3, 9, torch.Generator().manual_seed(0))
    converted = jax_training.converted(spec, model, unroll)
    actual = jax_contenders.loss_and_gradients(*converted, batch)
    return difference(actual, ours.loss_and_gradients(model, batch))


@needs_jax
@pytest.mark.parametrize("name", ZOO)
def test_every_model_in_jax_equals_ours_in_loss_and_gradients(child, name):
    assert child.submit(error_in_training, name, 1).result() <= 1e-5


def loss_of_an_unknown_mixer() -> None:
    """JAX's model of layers that it does not know."""
    from benchmarks import jax_training

    spec = named("mamba", vocabulary=16, width=8)
    converted, weights = jax_training.converted(spec, SequenceModel(spec), 1)
    object.__setattr__(spec, "layers", ("mamba", "abacus"))
    converted.logits(weights, np.zeros((1, 3), int))


@needs_jax
def test_jax_takes_no_unknown_mixer_for_another(child):
    with pytest.raises(ValueError, match="no mixer 'abacus' in JAX"):
        child.submit(loss_of_an_unknown_mixer).result()


def errors_in_operations() -> dict[str, float]:
    """How far JAX's operations are from ours, in output and gradients."""
    found = {}
    with mock.patch("benchmarks.jax_contenders.UNROLLS", (2,)):
        for make in (operations.scan, operations.conv, operations.attention):
            operation = make(2, 7, 8)
            made = operations.builders(operation, Options(), Report())
            found[operation.name] = difference(made["JAX"]().results(), made[OURS]().results())
    return found


@needs_jax
def test_every_operation_in_jax_equals_ours(child):
    errors = child.submit(errors_in_operations).result()
    assert errors.keys() == {"selective_scan", "causal_conv", "causal_attention"}
    assert all(error <= 1e-5 for error in errors.values()), errors


def weights_after_steps() -> tuple[list[float], list[float]]:
    """One weight vector after five steps of JAX's AdamW behind its clipping, and of PyTorch's."""
    import jax.numpy as jnp

    from benchmarks import jax_training

    gradients = torch.randn(5, 6, generator=torch.Generator().manual_seed(0)) * 10 ** torch.arange(
        -3.0, 3.0
    )
    weight = torch.nn.Parameter(torch.linspace(-1, 1, 6))
    optimizer = torch.optim.AdamW([weight], lr=0.1, weight_decay=0.0)
    state = jax_training.first_state({"w": jnp.array(weight.detach().numpy())})
    for gradient in gradients:
        weight.grad = gradient.clone()
        torch.nn.utils.clip_grad_norm_([weight], 1.0)
        optimizer.step()
        clipped = jax_training.clipped({"w": jnp.array(gradient.numpy())}, 1.0)
        state = jax_training.adamw(state, clipped, 0.1)
    return state.weights["w"].tolist(), weight.tolist()


@needs_jax
def test_clipping_and_adamw_in_jax_equal_torchs(child):
    actual, expected = child.submit(weights_after_steps).result()
    assert actual == pytest.approx(expected, rel=1e-5, abs=1e-5)


def sampled() -> tuple[np.ndarray, np.ndarray]:
    """A batch that JAX drew."""
    import jax

    from benchmarks import jax_training

    tokens, answers = jax_training.sample(TASK, 512, 9, jax.random.key(0))
    return np.asarray(tokens), np.asarray(answers)


@needs_jax
def test_sequences_drawn_in_jax_are_the_tasks(child):
    tokens, answers = child.submit(sampled).result()
    body, query = tokens[:, :-1], tokens[:, -1:]
    first = (body == query).argmax(axis=1)

    assert tokens.shape == (512, 10)
    assert set(query.ravel()) == set(range(TASK.queries))
    assert set(answers) == set(body.ravel()) == set(range(TASK.vocabulary))
    assert set(first) == set(range(9 - TASK.delay))
    np.testing.assert_array_equal(body[np.arange(512), first + TASK.delay], answers)


def test_without_jax_its_contender_is_unavailable_and_says_why(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", None)
    made = operations.builders(operations.conv(2, 7, 8), Options(), Report())
    with pytest.raises(Unavailable, match="jax is not installed"):
        made["JAX"]()


# The other contenders


@pytest.mark.parametrize("name", ZOO)
def test_every_eager_model_equals_ours_in_loss_and_gradients(name):
    schedule = Schedule(0.01, steps=10, context=9, batch=3)
    spec = named(name, vocabulary=16, width=8, longest_context=27)
    made = step.builders(spec, schedule, {}, Report())
    del made["JAX"]
    expected = made[OURS]().results()
    assert len(made) >= 2
    for name, build in made.items():
        assert difference(build().results(), expected) <= 1e-5, name


@pytest.mark.parametrize("name", ZOO)
def test_no_contender_uses_our_kernels(name, monkeypatch):
    def refuse(*_):
        raise AssertionError("a compiled kernel was called")

    monkeypatch.setattr(native, "call", refuse)
    spec = named(name, vocabulary=16, width=8, longest_context=27)
    made = step.builders(spec, Schedule(0.01, steps=10, context=9, batch=3), {}, Report())
    for name in made.keys() - {OURS, "JAX"}:
        made[name]().results()


def test_no_contender_takes_an_unknown_mixer_for_another():
    with pytest.raises(ValueError, match="no eager mixer for 'abacus'"):
        eager()("abacus", 8)


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
@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")
def test_an_operation_stands_beside_its_floor_whole_and_in_parts(monkeypatch):
    briefly = partial(roofline.measured_peaks, seconds=0.01)
    monkeypatch.setattr(roofline, "measured_peaks", briefly)
    report = Report()
    options = Options(rounds=2, batch=4, widths=(8,), lengths=(5,), contenders=("none",))
    operations.run(options, report)
    ours = {(row.subject, row.stage): row for row in report.rows if row.contender == OURS}
    bounds = [row for row in report.rows if row.contender == FLOOR]

    assert len(ours) == 3 * 4
    assert len(bounds) == 3 * 3
    for bound in bounds:
        row = ours[bound.subject, bound.stage]
        assert row.figures[OUTSIDE] > 0
        assert bound.figures["kernel / floor"] < bound.figures["ours / floor"]
        assert bound.figures["ours / floor"] == pytest.approx(row.median_ms / bound.median_ms)
        assert bound.figures["in cache / floor"] > 1


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


@pytest.mark.parametrize("part", ["mamba", "attention", "attention-rope"])
def test_the_blocks_agree(part):
    x, arriving = torch.randn(2, 2, 7, 8, generator=torch.Generator().manual_seed(0))
    x.requires_grad_()
    made = (
        block.mamba_builders(x, arriving, Options(), Report())
        if part == "mamba"
        else block.attention_builders(x, arriving, rotary=part == "attention-rope")
    )
    del made["JAX"]
    expected = made[OURS]().results()
    for name, build in made.items():
        assert difference(build().results(), expected) <= 1e-5, name


@pytest.mark.parametrize("make", [operations.scan, operations.conv, operations.attention])
def test_the_operations_agree(make):
    made = operations.builders(make(2, 7, 8), Options(compile_limit=0), Report())
    del made["JAX"]
    expected = made[OURS]().results()
    assert len(made) >= 2
    for name, build in made.items():
        assert difference(build().results(), expected) <= 1e-5, name


@pytest.mark.parametrize(("sequences", "context"), [(1000, 192), (1000, 2), (7, 64), (83, 4000)])
def test_evaluation_works_in_equal_chunks_that_leave_no_sequence_out(sequences, context):
    batch = held_out(AssociativeRecall(), context, sequences, "benchmark")
    batch.tokens[:, 0] = torch.arange(sequences)
    chunks = ours.chunks(batch)

    assert len({chunk.tokens.shape for chunk in chunks}) == 1
    assert {int(first) for chunk in chunks for first in chunk.tokens[:, 0]} == set(range(sequences))
    assert sum(len(chunk.answers) for chunk in chunks) < sequences + len(chunks)


@pytest.mark.parametrize("name", [OURS, "PyTorch, eager"])
def test_a_long_pass_is_measured(name):
    done = measured(name, 128, rounds=2, patience=60.0)
    expected = measured(OURS, 128, rounds=1, patience=60.0)

    assert name in CONTENDERS
    assert done.logits == pytest.approx(expected.logits, abs=1e-5)
    assert len(done.seconds) == 2
    assert done.mebibytes >= 0


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
        (name, f"PyTorch, eager{way}") for name in ZOO for way in ("", ", each token once")
    }
    both_ways.remove(("transformer-learned", "PyTorch, eager, each token once"))
    assert timed == {(name, OURS) for name in ZOO} | both_ways
    assert len(kept) - len(timed) in (0, len(ZOO))  # a floor each, where there is g++
