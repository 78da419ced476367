"""What a run that was just trained found, as a command prints it."""

from pathlib import Path

from recall_arena.cli.accuracy import accuracy_rows, say_accuracy
from recall_arena.cli.console import say, say_json
from recall_arena.records import Record


def show_outcome(record: Record, weights: Path | None, *, as_json: bool) -> None:
    """Accuracy by length and how the training ended, for people or for programs."""
    outcome = record.outcome
    if as_json:
        say_json(
            {
                "address": record.address,
                "ended_by": outcome.ended_by,
                "steps": outcome.steps,
                "solved_at": outcome.solved_at,
                "weights": None if weights is None else str(weights),
                "accuracy": accuracy_rows(outcome.contexts),
            }
        )
        return
    say_accuracy(outcome.contexts, trained=record.run["schedule"]["context"])
    solved = "" if outcome.solved_at is None else f", solved at {outcome.solved_at:,}"
    say(
        f"{outcome.steps:,} steps, ended by {outcome.ended_by}{solved}; "
        f"{record.cost.parameters:,} parameters; {record.cost.training_seconds:.0f} s"
    )
    say(f"record {record.address}" + ("" if weights is None else f"; weights {weights}"))
