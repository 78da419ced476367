"""The floors count what any implementation must do, at the peaks that the core was measured at."""

import shutil
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from kernel_checks import needs_kernels

from benchmarks import operations, roofline
from benchmarks.options import Options
from benchmarks.report import Report
from benchmarks.rows import FLOOR, OURS, OUTSIDE
from benchmarks.step_work import step_work
from recall_arena.model import named


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize(
    ("work", "sizes", "powers"),
    [
        (roofline.scan_work, (3, 20, 8, 16), (1, 1, None, None)),
        (roofline.conv_work, (3, 20, 8, 4), (1, 1, 1, None)),
        (roofline.attention_work, (3, 2, 20, 8), (1, 1, None, None)),
        (roofline.gated_delta_work, (3, 20, 2, 8, 16), (1, 1, 1, None, None)),
    ],
)
def test_work_grows_in_proportion_to_independent_axes(work, sizes, powers, direction):
    once = work(*sizes)[direction]
    for axis, power in enumerate(powers):
        if power is not None:
            doubled = list(sizes)
            doubled[axis] *= 2
            twice = work(*doubled)[direction]
            assert twice.exponentials == 2 * once.exponentials
            assert twice.multiply_adds == 2 * once.multiply_adds
            assert twice.bytes == 2 * once.bytes


def test_the_scans_work_is_that_of_its_states_and_a_little_for_each_channel():
    counts = [roofline.scan_work(1, 1, 1, state)["forward"] for state in (1, 2, 3)]
    assert {b.exponentials - a.exponentials for a, b in pairwise(counts)} == {1}
    assert {b.multiply_adds - a.multiply_adds for a, b in pairwise(counts)} == {4}
    assert {b.bytes - a.bytes for a, b in pairwise(counts)} == {8}


def test_attentions_work_is_its_causal_half():
    cells = sum(1 for query in range(20) for key in range(20) if key <= query)
    passes = roofline.attention_work(1, 1, 20, 8)
    assert passes["forward"].exponentials == passes["backward"].exponentials == cells
    assert passes["forward"].multiply_adds == 16 * cells
    assert passes["backward"].multiply_adds == 40 * cells


def test_a_scan_that_is_read_everywhere_is_the_whole_scan():
    assert roofline.scan_work(3, 20, 8, 16, read=60) == roofline.scan_work(3, 20, 8, 16)
    once, everywhere = roofline.scan_work(3, 20, 8, 16, read=3), roofline.scan_work(3, 20, 8, 16)
    for direction in ("forward", "backward"):
        assert once[direction].multiply_adds < everywhere[direction].multiply_adds
        assert once[direction].exponentials < everywhere[direction].exponentials


def test_the_delta_rules_work_is_that_of_its_state_and_less_where_it_is_not_read():
    whole, last = (roofline.gated_delta_work(3, 20, 2, 8, 16, read=n) for n in (None, 3))
    numbers = 3 * 20 * 2 * 8 * 16
    assert (whole["forward"].multiply_adds, whole["backward"].multiply_adds) == (
        4 * numbers,
        10 * numbers,
    )
    for direction in ("forward", "backward"):
        assert last[direction].multiply_adds < whole[direction].multiply_adds
        assert last[direction].bytes < whole[direction].bytes


def test_a_lone_query_sees_every_key():
    passes = roofline.attention_work(1, 1, 20, 8, queries=1)
    assert passes["forward"].exponentials == 20


def test_a_steps_work_is_mostly_products_where_the_model_is_wide():
    spec = named("transformer-rope", vocabulary=16, width=512, longest_context=0)
    work = step_work(spec, batch=2, length=9)
    rows, tokens, square = 18, 16, 512 * 512
    # Queries, keys and values of each token, out of each row; forward and twice backward.
    first = 3 * (tokens * 3 + rows) * square
    last = 3 * (rows * 2 + 2 * 2) * square
    attention = 7 * 512 * 2 * (45 + 9)
    assert work.multiply_adds == first + last + attention


def test_learned_positions_make_every_row_of_the_first_layer_another():
    def work(name):
        spec = named(name, vocabulary=16, width=8, longest_context=8)
        return step_work(spec, batch=2, length=9)

    more = work("transformer-learned").multiply_adds - work("transformer-nope").multiply_adds
    assert more == 3 * (18 - 16) * 3 * 64


def test_a_floor_adds_arithmetic_and_takes_the_larger_of_it_and_memory():
    peaks = roofline.Peaks(exponentials=10, multiply_adds=100, bytes=1000)
    assert roofline.Work(20, 300, 0).floor(peaks) == pytest.approx(5)
    assert roofline.Work(20, 300, 7000).floor(peaks) == pytest.approx(7)
    assert roofline.Work(20, 300, 7000).floor(peaks, cores=2) == pytest.approx(3.5)


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")
def test_peaks_are_those_of_functions_that_are_right():
    peaks = roofline.measured_peaks(1 << 16, seconds=0.01)
    assert peaks.multiply_adds > peaks.exponentials > 1e6
    assert peaks.bytes > 1e6
    for x in np.linspace(-20, 5, 26):
        assert roofline.exponential(float(x)) == pytest.approx(np.exp(x), rel=1e-6)


def test_an_unknown_kind_of_layer_has_no_floor():
    spec = named("mamba", vocabulary=16, width=8)
    object.__setattr__(spec, "layers", ("mamba", "abacus"))
    with pytest.raises(ValueError, match="abacus"):
        step_work(spec, batch=2, length=9)


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

    assert len(ours) == 4 * 4
    assert len(bounds) == 4 * 3
    for bound in bounds:
        row = ours[bound.subject, bound.stage]
        assert row.figures[OUTSIDE] > 0
        assert bound.figures["kernel / floor"] < bound.figures["ours / floor"]
        assert bound.figures["ours / floor"] == pytest.approx(row.median_ms / bound.median_ms)
        assert bound.figures["in cache / floor"] > 1
