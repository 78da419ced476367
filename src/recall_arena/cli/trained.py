"""The model of a record, with the weights that were kept."""

from pathlib import Path

from recall_arena.cli import stores
from recall_arena.cli.command import Mistake
from recall_arena.cli.console import tell
from recall_arena.model import SequenceModel
from recall_arena.records import Record
from recall_arena.runs import Run, run_of
from recall_arena.trained import with_weights


def run_named(store: Path, address: str) -> tuple[Run, Record]:
    """The run that an address begins, and its record; raises Mistake if there is none to read."""
    record = stores.record_named(store, address)
    try:
        return run_of(record), record
    except ValueError as error:
        raise Mistake(f"record {record.address} cannot be read here ({error})") from None


def trained_model(store: Path, run: Run, record: Record) -> SequenceModel:
    """Raises Mistake if its weights were not kept, or are damaged."""
    try:
        model, doubt = with_weights(store, run, record)
    except ValueError as error:
        raise Mistake(str(error)) from None
    if doubt:
        tell(doubt)
    return model
