"""Files that are there whole or not at all, whoever looks and whatever breaks off."""

import os
import tempfile
from pathlib import Path


def write(path: Path, content: bytes, *, replace: bool) -> bool:
    """Write a file, and its folder where that is missing.

    Returns False, and leaves the file as it is, if it exists and is not to be replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".partial")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
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
