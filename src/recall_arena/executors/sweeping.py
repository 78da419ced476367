"""What processes that were killed have left in a store."""

from recall_arena import atomic
from recall_arena.executors.leases import lease
from recall_arena.executors.work import Work
from recall_arena.records import ADDRESS, Store, lease_path, snapshot_path
from recall_arena.records.places import UNFINISHED, WEIGHTS


def sweep(store: Store, *, keep_weights: bool = False) -> None:
    """Remove half-written files that nobody writes any more, and snapshots of finished runs.

    With `keep_weights` a run whose weights are not there is not finished.
    """
    work = Work(store, keep_weights=keep_weights)
    unfinished = store.folder / UNFINISHED
    for folder in (store.folder, unfinished, store.folder / WEIGHTS):
        atomic.sweep(folder)
    for path in unfinished.glob("*.*") if unfinished.is_dir() else ():
        if not ADDRESS.fullmatch(path.stem) or not work.has(path.stem):
            continue
        with lease(lease_path(store.folder, path.stem), seconds=0.0) as ours:
            if ours:
                snapshot_path(store.folder, path.stem).unlink(missing_ok=True)
                lease_path(store.folder, path.stem).unlink(missing_ok=True)
