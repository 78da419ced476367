"""Files that are there whole or not at all, whoever looks and whatever breaks off."""

import os
import platform
import re
import secrets
import time
from contextlib import suppress
from pathlib import Path

HOST = re.sub(r"[^A-Za-z0-9_-]", "_", platform.node())
_PARTIAL = re.compile(r"\.([A-Za-z0-9_-]*)\.([0-9]+)\.[0-9a-f]{8}\.partial")
SECONDS_TO_WRITE = 86_400.0
"""After so many a half-written file of another machine is nobody's."""


def write(path: Path, content: bytes, *, replace: bool) -> bool:
    """Write a file, and its folder where that is missing.

    Returns False, and leaves the file as it is, if it exists and is not to be replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Named before it is there, so that whatever breaks off while it is made finds it below.
    temporary = path.parent / f".{HOST}.{os.getpid()}.{secrets.token_hex(4)}.partial"
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        if not replace:
            return _publish(temporary, path)
        temporary.replace(path)
        return True
    finally:
        temporary.unlink(missing_ok=True)


def _publish(temporary: Path, path: Path) -> bool:
    """Name a file; the file that has the name already stays."""
    try:
        path.hardlink_to(temporary)  # fails rather than overwrites
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        if os.path.lexists(path):
            return False
        temporary.replace(path)
    return True


def sweep(folder: Path) -> None:
    """Remove files whose writers were killed before they were whole; nobody else's files."""
    for path in folder.glob(".*.partial"):
        match = _PARTIAL.fullmatch(path.name)
        if match is not None and _is_left(path, *match.groups()):
            with suppress(OSError):  # gone meanwhile, or somebody else's to remove
                path.unlink()


def _is_left(path: Path, host: str, process: str) -> bool:
    """Whether the file's writer is gone: its process here, or its time elsewhere."""
    if host == HOST and os.name == "posix":
        return not _runs(int(process))
    try:
        return time.time() - path.stat().st_mtime > SECONDS_TO_WRITE
    except FileNotFoundError:
        return False


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
