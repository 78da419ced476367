"""Studies and their records, as one HTML page that needs no network, as Markdown and as CSV."""

from recall_arena.report.page import write_report

__all__ = ["write_report"]
