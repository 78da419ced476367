"""How long may a sequence be?  Time and memory of one forward pass over 2^10 to 2^20 tokens.

Each measurement has a process of its own, so that its memory is its own: what a pass takes at
most beyond what the process held before.
"""

import json
import subprocess
import sys
from dataclasses import asdict

import numpy as np

from benchmarks.long_pass import CONTENDERS, WIDTH, Pass, Request
from benchmarks.measuring import TOLERANCE, difference
from benchmarks.options import Options
from benchmarks.report import Report
from benchmarks.rows import OURS, Row, Setting

PART, SUBJECT = "long", "mamba"
SHORTEST, EVERY = 10, 2  # binary logarithms of tokens


def run(options: Options, report: Report) -> None:
    """Every contender at every length, until it would pass a limit; no further than ours."""
    if not options.asks(SUBJECT):
        return
    out_of_reach: set[str] = set()
    before: dict[str, Pass] = {}
    for log_length in range(SHORTEST, options.longest + 1, EVERY):
        setting = Setting(PART, SUBJECT, {"batch": 1, "tokens": 1 << log_length, "d": WIDTH})
        report.say(setting.title())
        passes: dict[str, Pass] = {}
        for name in CONTENDERS:
            wanted = name == OURS or options.wants(name)
            if not wanted or name in out_of_reach:
                continue
            outcome = _too_much(before.get(name), options) or measure(name, log_length, options)
            if isinstance(outcome, Pass):
                passes[name] = outcome
            else:
                out_of_reach.add(name)
                report.leave_out(setting, name, f"{outcome}; longer ones were not tried")
        if OURS not in passes:
            return
        before |= passes
        report.rows += _rows(setting, passes, options, report)


def _too_much(shorter: Pass | None, options: Options) -> str | None:
    """Why the next length is not tried, judging by the one before."""
    if shorter is None:
        return None
    seconds = min(shorter.seconds) * 2**EVERY
    mebibytes = shorter.mebibytes * 2**EVERY
    if seconds > options.seconds_limit:
        return f"would take about {seconds:.0f} s"
    if mebibytes > options.memory_limit:
        return f"would take about {mebibytes:.0f} MiB"
    return None


def measure(name: str, log_length: int, options: Options) -> Pass | str:
    """Measure in a process of its own; a string says why there is no result."""
    asked = Request(name, 1 << log_length, options.threads, options.rounds, options.patience)
    command = [sys.executable, "-m", "benchmarks.long_pass", json.dumps(asdict(asked))]
    longest = 3 * options.seconds_limit + options.compile_limit + 60  # three passes, imports
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=longest)
    except subprocess.TimeoutExpired:
        return f"not done within {longest:.0f} s"
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        return said[-1] if said else f"ended with status {done.returncode}"
    return Pass(**json.loads(done.stdout))


def _rows(setting: Setting, passes: dict[str, Pass], options: Options, report: Report) -> list[Row]:
    ours, rows = passes[OURS], []
    for name, each in passes.items():
        error = difference({"": np.array(each.logits)}, {"": np.array(ours.logits)})
        if not error <= TOLERANCE:
            reason = f"disagrees: largest relative difference {error:.1e}"
            report.leave_out(setting, name, reason)
            continue
        report.say(f"  {name}: agrees to {error:.1e}")
        low, middle, high = (1e3 * q for q in np.quantile(each.seconds, [0.25, 0.5, 0.75]))
        figures = {"MiB above the model": each.mebibytes, **each.figures}
        rows.append(
            Row(
                part=PART,
                subject=setting.subject,
                stage="forward",
                shape=setting.shape,
                threads=options.threads,
                contender=name,
                rounds=len(each.seconds),
                median_ms=middle,
                low_ms=low,
                high_ms=high,
                ratio=middle / (1e3 * float(np.median(ours.seconds))),
                cores=each.cores,
                figures=figures,
            )
        )
    return rows
