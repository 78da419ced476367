"""Freed memory kept for the next step."""

import ctypes

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # mallopt(3)
LARGEST_MMAP_THRESHOLD = 32 << 20


def keep_freed_memory() -> None:
    """Have this process keep what it frees; only glibc is known to need it.

    Otherwise it gives the tensors of a step back to the system and asks for them again in the
    next one: up to a thousand page faults, a twentieth of a step at width 64.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or Windows
        return
    mallopt(ctypes.c_int(TRIM_THRESHOLD), ctypes.c_int(2**31 - 1))
    mallopt(ctypes.c_int(MMAP_THRESHOLD), ctypes.c_int(LARGEST_MMAP_THRESHOLD))
