"""Rows that say how far ours is from what the core allows."""

from dataclasses import replace

from benchmarks import roofline
from benchmarks.measuring import OURS, Unavailable
from benchmarks.report import Options, Report, Row, Setting

FLOOR = "the core's floor"


def add(
    setting: Setting,
    works: dict[str, roofline.Work],
    rows: list[Row],
    options: Options,
    report: Report,
) -> None:
    """One row for each stage of ours: the least time that its work takes on this machine."""
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
        report.rows.append(
            replace(
                row,
                contender=FLOOR,
                rounds=0,
                median_ms=floor,
                quartiles_ms=(floor, floor),
                ratio=floor / row.median_ms,
                figures=figures,
            )
        )
