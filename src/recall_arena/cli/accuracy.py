"""Accuracy by context length, as a table."""

from recall_arena.cli.console import say_table
from recall_arena.intervals import wilson
from recall_arena.records import Tally

SHOWN = 12


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
