"""Rows as Markdown: after a run, and in results/benchmarks.md, made from results/benchmarks.jsonl.

python -m benchmarks.tables writes that page.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

from benchmarks.rows import Kept, LeftOut, Origin, Row, read, sizes

RESULTS = Path(__file__).parent.parent / "results"
UNDISTURBED = 0.9  # of a core


def tables(given: Sequence[Row | LeftOut]) -> list[str]:
    """What was measured, then bounds, then one line for each contender left out."""
    rows = [row for row in given if isinstance(row, Row)]
    measured = [row for row in rows if row.rounds > 0]
    bounds = [row for row in rows if row.rounds == 0]
    reasons = [
        f"* {each.subject}, {sizes(each.shape)}: {each.contender} left out, {each.reason}"
        for each in given
        if isinstance(each, LeftOut)
    ]
    blocks = [_table(measured), _table(bounds), [*_disturbances(measured), *reasons]]
    return [line for block in blocks if block for line in [*block, ""]]


def page(rows: Iterable[Kept]) -> str:
    """All rows: a section a machine and commit, in it one a part and number of threads."""
    lines = [
        "# Benchmarks",
        "",
        "`make numbers` makes this page of [benchmarks.jsonl](benchmarks.jsonl), to which",
        "`make bench` adds.",
        "[../benchmarks/README.md](../benchmarks/README.md) says how to read it.",
        "",
    ]
    for origin, of_origin in groupby(rows, lambda each: each.origin):
        lines += [f"## {origin.machine}, commit {origin.commit}", "", described(origin), ""]
        parts: dict[tuple[str, int], list[Row | LeftOut]] = {}
        for each in of_origin:
            parts.setdefault((each.row.part, each.row.threads), []).append(each.row)
        for (part, threads), of_part in parts.items():
            lines += [f"### {part}, {threads} thread{'s' * (threads > 1)}", "", *tables(of_part)]
    return "\n".join(lines)


def described(origin: Origin) -> str:
    """The origin's other facts, as a sentence."""
    return f"{origin.date}; kernels: {origin.kernels}; {origin.versions}."


def _disturbances(rows: list[Row]) -> list[str]:
    """One line if other processes took some of the time of what was measured."""
    disturbed = [row for row in rows if row.cores < UNDISTURBED]
    if not disturbed:
        return []
    least = min(row.cores for row in disturbed)
    return [
        f"* {len(disturbed)} of {len(rows)} measurements had less than {UNDISTURBED:g} of a core, "
        f"down to {least:.2f}: other processes were in the way"
    ]


def _table(rows: list[Row]) -> list[str]:
    """The rows with whatever figures they have; none where there are no rows."""
    if not rows:
        return []
    figures = list(dict.fromkeys(name for row in rows for name in row.figures))
    heads = ["what", "shape", "contender", "timed", "median ms", "quartiles ms", "times ours"]
    lines = [line([*heads, *figures]), line([":--"] * 3 + ["--:"] * (4 + len(figures)))]
    for row in rows:
        cells = [f"{row.subject}, {row.stage}", sizes(row.shape), row.contender, str(row.rounds)]
        cells += [digits(row.median_ms), f"{digits(row.low_ms)}-{digits(row.high_ms)}"]
        cells += [f"{row.ratio:.2f}"]
        cells += [digits(row.figures[each]) if each in row.figures else "" for each in figures]
        lines.append(line(cells))
    return lines


def digits(number: float) -> str:
    """Three digits, or all of a larger number's."""
    return f"{number:.0f}" if number >= 1000 else f"{number:.3g}"


def line(cells: Iterable[str]) -> str:
    """One line of a table."""
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    (RESULTS / "benchmarks.md").write_text(page(read(RESULTS / "benchmarks.jsonl")))
