"""What is seen of a run while it trains: losses, checks, and whether they end it."""

import math
from dataclasses import astuple
from typing import Any

from recall_arena.evaluation import Counts, held_out
from recall_arena.records import Outcome, Tally
from recall_arena.runs import Run


class Monitor:
    """Losses and checks of a run so far."""

    def __init__(self, run: Run) -> None:
        self.rule = run.checks
        self.batch = held_out(run.task, run.schedule.context, run.checks.sequences, "validation")
        self.step = 0
        self.diverged = False
        self.losses: list[float] = []
        self.checks: list[tuple[int, Counts]] = []
        self._since_check: list[float] = []

    def add(self, step: int, loss: float) -> None:
        """A step was taken."""
        self.step = step
        self.diverged = not math.isfinite(loss)
        self._since_check.append(loss)

    def check(self, counts: Counts) -> None:
        """The validation sequences were answered."""
        self.losses.append(sum(self._since_check) / len(self._since_check))
        self._since_check = []
        self.checks.append((self.step, counts))

    @property
    def latest(self) -> float:
        """The last check's accuracy."""
        return self.checks[-1][1].accuracy if self.checks else 0.0

    @property
    def solved(self) -> bool:
        """Whether enough checks in a row reach the accuracy that ends the run."""
        last = self.checks[-self.rule.running :]
        enough = len(last) == self.rule.running
        return enough and all(counts.accuracy >= self.rule.solved for _, counts in last)

    @property
    def over(self) -> bool:
        """Whether the run ends here, whatever its budget."""
        return self.diverged or self.solved

    def outcome(self, tested: list[tuple[int, Counts]]) -> Outcome:
        """What the run found."""
        ended = "diverged" if self.diverged else "solved" if self.solved else "budget"
        return Outcome(
            ended_by=ended,  # type: ignore[arg-type]
            steps=self.step,
            solved_at=self.checks[-self.rule.running][0] if self.solved else None,
            losses=self.losses,
            checks=tally(self.checks),
            contexts=tally(tested),
        )

    def state(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return {
            "step": self.step,
            "diverged": self.diverged,
            "losses": list(self.losses),
            "checks": rows_as_json(self.checks),
            "since_check": list(self._since_check),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.step, self.diverged = state["step"], state["diverged"]
        self.losses, self._since_check = state["losses"], state["since_check"]
        self.checks = rows_from_json(state["checks"])


def rows_as_json(rows: list[tuple[int, Counts]]) -> list[list[Any]]:
    """Counts at steps or lengths; `rows_from_json` brings them back."""
    return [[at, *astuple(counts)] for at, counts in rows]


def rows_from_json(rows: list[list[Any]]) -> list[tuple[int, Counts]]:
    return [(at, Counts(*counts)) for at, *counts in rows]


def tally(rows: list[tuple[int, Counts]]) -> Tally:
    """Counts at steps or lengths, as a record keeps them."""
    return Tally(
        at=[at for at, _ in rows],
        total=[counts.total for _, counts in rows],
        correct=[counts.correct for _, counts in rows],
        total_by_query=[counts.total_by_query for _, counts in rows],
        correct_by_query=[counts.correct_by_query for _, counts in rows],
        total_repeats=[counts.total_repeats for _, counts in rows],
        correct_repeats=[counts.correct_repeats for _, counts in rows],
    )
