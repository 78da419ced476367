"""A trained model again: the run of a record, with the weights that were kept beside it."""

import warnings
from pathlib import Path

from recall_arena.checkpoints import load_weights, weights_hash
from recall_arena.model import SequenceModel
from recall_arena.records import Record, Store, weights_path
from recall_arena.runs import Run, build, run_of


def trained(address: str, store: Path | str = "runs") -> tuple[Run, SequenceModel]:
    """A run and the model that it trained.

        run, model = trained("3f2a")  # the first digits of its address are enough
        batch = run.task.sample(1, run.schedule.context, torch.Generator().manual_seed(0))

    Raises ValueError, in one line, if no record, or more than one, begins so; if it cannot be read
    here; if its weights were not kept, are damaged, of another run, or not finite; DamagedRecord if
    the record's file is broken.  Warns where weights are not known to be those of the record.
    """
    records = Store(Path(store))
    record = records.read(records.find(address))
    run = run_of(record)
    model, doubt = with_weights(records.folder, run, record)
    if doubt:
        warnings.warn(doubt, stacklevel=2)
    return run, model


def with_weights(store: Path, run: Run, record: Record) -> tuple[SequenceModel, str | None]:
    """The trained model, and why its weights may not be the record's own; ValueError if none."""
    model, path = build(run), weights_path(store, run.address)
    try:
        hashed = load_weights(model, path)
    except FileNotFoundError:
        raise ValueError(
            f"the weights of {run.address} were not kept; `recall train` keeps them, other "
            "commands with --keep-weights"
        ) from None
    except ValueError as error:
        raise ValueError(f"{error}; delete it to train again") from None
    if not hashed:
        return model, f"{path} holds no hash: an earlier version wrote it"
    if record.weights not in (None, weights_hash(model.state_dict())):
        return model, f"{path} is not, to the last bit, what the record tells of: trained anew"
    return model, None
