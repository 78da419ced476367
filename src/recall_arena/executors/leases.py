"""Who works on a run: at most one process at a time, of all that share a store.

A lease is a lock that the operating system holds for the process, so that it ends when the process
dies, however it dies.  That is as good on a file system that several machines share, as long as
its locks reach across them (NFS version 4, Lustre with `flock`, GPFS).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

SECONDS_TO_WAIT = 1.0
"""So long a process waits for a lease before it turns to another run."""


@contextmanager
def lease(path: Path, seconds: float = SECONDS_TO_WAIT) -> Iterator[bool]:
    """Whether this process alone has the file's lease, until the block is over.

    The file stays.  Who removes it must hold the lease, and must have left something by which
    whoever gets the lease of the removed file sees that nothing is to be done.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(timeout=seconds, poll_interval=0.1)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
