"""Contenders take turns, and only those that compute the same numbers are timed.

Turns, so that a busy moment of the machine hits all of them alike; medians and quartiles, so
that such a moment does not decide.  A first turn that warms up is dropped.  In its turn a quick
contender runs everything once before it is timed, and is then timed a few times in a row: the
others have emptied the caches, and in training a step follows one like it.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.options import Options
from benchmarks.report import Report
from benchmarks.rows import OUTSIDE, Row, Setting
from benchmarks.watch import Kernels, watched

TOLERANCE = 1e-4  # of the largest number: far above what float32 rounds, far below any mistake
FEWEST_ROUNDS = 3  # even of a contender that has used up its time
QUICK = 0.1  # seconds
IN_A_ROW = 3  # times that a quick contender is timed in its turn

Results = dict[str, np.ndarray]
Stage = Callable[[Any], Any]


class Unavailable(Exception):
    """Why a contender cannot take part, as one line."""


@contextmanager
def optional() -> Iterator[None]:
    """Where a package is imported that may be missing: then its contender is unavailable."""
    try:
        yield
    except ImportError as error:
        raise Unavailable(f"{error.name} is not installed") from error


@dataclass(frozen=True)
class Contender:
    """One implementation of what a comparison is about.

    results  computes what is compared with ours: outputs and gradients by name
    chains   what is timed: stages by name, each getting what the one before in its chain
             returned, and returning when its own result is there, not when it is promised
    figures  what else its rows should say, such as the seconds that compiling took
    """

    name: str
    results: Callable[[], Results]
    chains: list[dict[str, Stage]]
    figures: dict[str, float] = field(default_factory=dict)

    def stages(self) -> list[str]:
        """The names of all stages."""
        return [name for chain in self.chains for name in chain]


Builders = dict[str, Callable[[], Contender]]
"""How contenders are made, by name; ours comes first.  A builder may raise Unavailable."""


@dataclass
class Times:
    """The seconds of each stage by turn, those within compiled kernels, and how busy cores were."""

    seconds: dict[str, list[float]]
    within: dict[str, list[float]]
    wall: float = 0.0
    processor: float = 0.0


def difference(actual: Results, expected: Results) -> float:
    """The largest difference, relative to the largest number of the tensor that it is in."""
    if actual.keys() != expected.keys():
        return float("inf")
    errors = [_relative_error(actual[name], wanted) for name, wanted in expected.items()]
    return max(errors, key=lambda error: (error != error, error))  # nan counts as the largest


def _relative_error(actual: np.ndarray, expected: np.ndarray) -> float:
    if actual.shape != expected.shape:
        return float("inf")
    error, largest = np.abs(actual - expected).max(), np.abs(expected).max()
    if largest == 0:
        return 0.0 if error == 0 else float("inf")
    return float(error / largest)


def compare(setting: Setting, builders: Builders, options: Options, report: Report) -> list[Row]:
    """Build, check and time the contenders; the report gets the rows and what was left out."""
    report.say(setting.title())
    agreed = list(_agreeing(setting, builders, options, report))
    times = take_turns(agreed, options.rounds, options.patience)
    rows = _rows(setting, agreed, times, options)
    report.rows += rows
    return rows


def _agreeing(
    setting: Setting, builders: Builders, options: Options, report: Report
) -> Iterator[Contender]:
    """The contenders that compute what ours computes."""
    expected: Results = {}
    for name, build in builders.items():
        if expected and not options.wants(name):
            continue
        try:
            contender = build()
            results = contender.results()
        except Unavailable as reason:
            report.leave_out(setting, name, str(reason))
            continue
        expected = expected or results  # ours
        error = difference(results, expected)
        if error <= TOLERANCE:
            report.say(f"  {contender.name}: agrees to {error:.1e}")
            yield contender
        else:
            disagreement = f"disagrees: largest relative difference {error:.1e}"
            report.leave_out(setting, contender.name, disagreement)


def take_turns(contenders: list[Contender], rounds: int, patience: float) -> dict[str, Times]:
    """Time every stage of each contender's turns.

    A contender that has used `patience` seconds stops after FEWEST_ROUNDS rounds.
    """
    times = {each.name: _no_times(each) for each in contenders}
    with watched() as kernels:
        latest = {each.name: _turn(each, _no_times(each), kernels, False) for each in contenders}
        for round_ in range(rounds):
            for each in contenders:
                if round_ >= FEWEST_ROUNDS and times[each.name].wall >= patience:
                    continue
                warm = latest[each.name] < QUICK
                latest[each.name] = _turn(each, times[each.name], kernels, warm)
    return times


def _no_times(contender: Contender) -> Times:
    return Times(*({stage: [] for stage in contender.stages()} for _ in range(2)))


def _turn(contender: Contender, times: Times, kernels: Kernels, warm: bool) -> float:
    """Add one turn to the times; returns the seconds that running everything once took."""
    before, repeats = times.wall, IN_A_ROW if warm else 1
    for chain in contender.chains:
        if warm:
            _run(chain, _no_times(contender), kernels)
        for _ in range(repeats):
            _run(chain, times, kernels)
    return (times.wall - before) / repeats


def _run(chain: dict[str, Stage], times: Times, kernels: Kernels) -> None:
    value = None
    busy, began = time.process_time(), time.perf_counter()
    for name, stage in chain.items():
        before, start = kernels.seconds, time.perf_counter()
        value = stage(value)
        times.seconds[name].append(time.perf_counter() - start)
        times.within[name].append(kernels.seconds - before)
    times.wall += time.perf_counter() - began
    times.processor += time.process_time() - busy


def seconds_a_turn(candidates: list[Contender], rounds: int = 2) -> list[float]:
    """The shortest turn of each candidate, where one contender has several modes."""
    times = take_turns(candidates, rounds, patience=0.0)
    return [sum(min(stage) for stage in times[each.name].seconds.values()) for each in candidates]


def _rows(
    setting: Setting, contenders: list[Contender], times: dict[str, Times], options: Options
) -> list[Row]:
    """One row for each contender and stage; the first contender is ours."""
    rows = []
    for stage in contenders[0].stages():
        fastest = statistics.median(times[contenders[0].name].seconds[stage])
        for each in contenders:
            seconds = times[each.name].seconds[stage]
            low, middle, high = statistics.quantiles(seconds, n=4, method="inclusive")
            rows.append(
                Row(
                    part=setting.part,
                    subject=setting.subject,
                    stage=stage,
                    shape=setting.shape,
                    threads=options.threads,
                    contender=each.name,
                    rounds=len(seconds),
                    median_ms=1e3 * middle,
                    low_ms=1e3 * low,
                    high_ms=1e3 * high,
                    ratio=middle / fastest,
                    cores=times[each.name].processor / times[each.name].wall,
                    figures=each.figures | _outside(seconds, times[each.name].within[stage]),
                )
            )
    return rows


def _outside(seconds: list[float], within: list[float]) -> dict[str, float]:
    """The percentage of the time in which no compiled kernel was at work, if any ever was."""
    if not any(within):
        return {}
    outside = [1 - inside / whole for inside, whole in zip(within, seconds, strict=True)]
    return {OUTSIDE: 100 * statistics.median(outside)}
