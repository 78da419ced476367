"""Accuracy by context length, as a table."""

from recall_arena.cli.command import Mistake
from recall_arena.cli.console import say_table
from recall_arena.evaluation import Contexts
from recall_arena.intervals import wilson
from recall_arena.records import Tally
from recall_arena.tasks import Task

SHOWN = 12


def checked_contexts(contexts: Contexts, task: Task) -> Contexts:
    """The contexts; raises Mistake if there is none among them, or one that the task has not."""
    lengths, shortest = contexts.lengths(task), task.shortest_context
    if lengths and lengths[0] >= shortest:
        return contexts
    if contexts.at:
        raise Mistake(f"--contexts must be at least {shortest} with this task, got {lengths[0]}")
    first = shortest if contexts.first is None else contexts.first
    raise Mistake(
        f"--contexts.first must be at least {shortest} with this task and --contexts.last at "
        f"least --contexts.first, got {first} and {contexts.last}"
    )


def accuracy_rows(tally: Tally) -> list[dict[str, int | float]]:
    """A row a context length, with the Wilson 95 % interval."""
    return [
        {
            "context": at,
            "n": total,
            "accuracy": correct / total,
            "low": wilson(correct, total)[0],
            "high": wilson(correct, total)[1],
        }
        for at, correct, total in zip(tally.at, tally.correct, tally.total, strict=True)
    ]


def say_accuracy(tally: Tally, trained: int) -> None:
    """Print a dozen of the lengths, the shortest, the longest and the trained one among them."""
    rows = accuracy_rows(tally)
    stride = max(1, len(rows) // SHOWN)
    shown = [
        row
        for i, row in enumerate(rows)
        if i % stride == 0 or row["context"] in (trained, tally.at[-1])
    ]
    say_table(
        ("context", "accuracy", "95 % interval", "n"),
        [
            (
                f"{row['context']}{' (trained)' if row['context'] == trained else ''}",
                f"{row['accuracy']:.1%}",
                f"{row['low']:.1%} to {row['high']:.1%}",
                f"{row['n']:,}",
            )
            for row in shown
        ],
    )
