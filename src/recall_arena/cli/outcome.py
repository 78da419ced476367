"""One run that a command has described: it is executed, and what it found is printed."""

from pathlib import Path

from recall_arena.cli import stores
from recall_arena.cli.accuracy import accuracy_rows, say_accuracy
from recall_arena.cli.console import say, say_json
from recall_arena.cli.executing import How, finish
from recall_arena.records import Record, weights_path
from recall_arena.runs import Run


def finish_and_show(
    run: Run, name: str, folder: Path, how: How, *, keep_weights: bool, as_json: bool
) -> int:
    """Execute a run if the store in this folder lacks it, show its outcome; the exit code."""
    store = stores.to_write(folder)
    stores.prepare(folder)
    if run.address in store:
        store.read(run.address)  # a damaged record is found before anything is trained
    if finish([run], {run.address: name}, store, how, keep_weights=keep_weights):
        return 1
    weights = weights_path(folder, run.address) if keep_weights else None
    _show(store.read(run.address), weights, as_json=as_json)
    return 0


def _show(record: Record, weights: Path | None, *, as_json: bool) -> None:
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
