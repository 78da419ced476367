"""Rows that say how far ours is from what the core allows."""

from dataclasses import replace

from benchmarks import roofline
from benchmarks.measuring import Unavailable
from benchmarks.options import Options
from benchmarks.report import Report
from benchmarks.rows import FLOOR, OURS, OUTSIDE, Row, Setting

Figures = dict[str, float]


def add(
    setting: Setting,
    works: dict[str, roofline.Work],
    rows: list[Row],
    options: Options,
    report: Report,
    others: dict[str, Figures] | None = None,
) -> None:
    """One row for each stage of ours: the least time that its work takes on this machine.

    Beside it stands how many times as long ours takes, and how many times as long the compiled
    kernels alone; and what `others` has for a stage.
    """
    for row in [row for row in rows if row.contender == OURS and row.stage in works]:
        work = works[row.stage]
        try:
            peaks = roofline.measured_peaks(work.bytes)
        except Unavailable as reason:
            report.leave_out(setting, FLOOR, str(reason))
            return
        floor = 1e3 * work.floor(peaks, options.threads)
        figures = {
            "Mexp": work.exponentials / 1e6,
            "Mfma": work.multiply_adds / 1e6,
            "MB": work.bytes / 1e6,
            "Gexp/s": peaks.exponentials / 1e9,
            "Gfma/s": peaks.multiply_adds / 1e9,
            "GB/s": peaks.bytes / 1e9,
            "ours / floor": row.median_ms / floor,
        }
        if OUTSIDE in row.figures:
            within = row.median_ms * (1 - row.figures[OUTSIDE] / 100)
            figures["kernel / floor"] = within / floor
        report.rows.append(
            replace(
                row,
                contender=FLOOR,
                rounds=0,
                median_ms=floor,
                low_ms=floor,
                high_ms=floor,
                ratio=floor / row.median_ms,
                figures=figures | (others or {}).get(row.stage, {}),
            )
        )
