"""What a run tells while it lasts: progress on standard error, rows and what was left out."""

import sys
from dataclasses import dataclass, field

from benchmarks.rows import LeftOut, Row, Setting


@dataclass
class Report:
    """What was measured so far, by contenders of so many threads."""

    threads: int = 1
    rows: list[Row] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    def say(self, line: str) -> None:
        """Tell how far the run is."""
        print(line, file=sys.stderr, flush=True)

    def leave_out(self, setting: Setting, contender: str, reason: str) -> None:
        """Remember and say that a contender is not timed."""
        self.say(f"  {contender}: NOT TIMED, {reason}")
        which = (setting.part, setting.subject, setting.shape, self.threads)
        self.left_out.append(LeftOut(*which, contender, reason))

    def of(self, part: str) -> list[Row | LeftOut]:
        """All of one part."""
        return [row for row in (*self.rows, *self.left_out) if row.part == part]
