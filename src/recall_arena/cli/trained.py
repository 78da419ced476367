"""The model of a record, with the weights that were kept."""

from pathlib import Path

from recall_arena.checkpoints import load_weights, weights_hash
from recall_arena.cli import stores
from recall_arena.cli.command import Mistake
from recall_arena.cli.console import tell
from recall_arena.model import SequenceModel
from recall_arena.records import Record, weights_path
from recall_arena.runs import Run, build, run_of


def run_named(store: Path, address: str) -> tuple[Run, Record]:
    """The run that an address begins, and its record; raises Mistake if there is none to read."""
    record = stores.record_named(store, address)
    try:
        return run_of(record), record
    except ValueError as error:
        raise Mistake(f"record {record.address} cannot be read here ({error})") from None


def trained_model(store: Path, run: Run, record: Record) -> SequenceModel:
    """Raises Mistake if its weights were not kept, or are damaged."""
    model = build(run)
    path = weights_path(store, run.address)
    try:
        checked = load_weights(model, path)
    except FileNotFoundError:
        raise Mistake(
            f"the weights of {run.address} were not kept; `recall train` keeps them"
        ) from None
    except ValueError as error:
        raise Mistake(f"{error}; delete it to train again") from None
    if not checked:
        tell(f"{path} holds no hash: an earlier version wrote it")
    elif record.weights not in (None, weights_hash(model.state_dict())):
        tell(f"{path} is not, to the last bit, what the record tells of: it was trained anew")
    return model
