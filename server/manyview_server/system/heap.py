"""Keep freed memory for later use, on Linux with glibc.

By default glibc gives the memory of large blocks back to the kernel as soon as they are freed. A server that receives
messages of a megabyte then spends more time on clearing pages anew than on copying the messages.
"""

from __future__ import annotations

import ctypes
import os

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Numbers of `mallopt` in malloc.h."""
KEPT_BYTES = 64 << 20
"""The freed memory at the end of an arena that is kept."""
LARGE_BYTES = 32 << 20
"""Blocks of this size and larger ones go back to the kernel at once."""
OWN_SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
"""Variables by which an operator chooses otherwise."""


def keep_freed_memory() -> bool:
    """Keep freed memory in this process, unless its environment says how. Return whether it is kept from now on."""
    if any(os.environ.get(name) for name in OWN_SETTINGS):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library
        return False
    options = ((M_MMAP_THRESHOLD, LARGE_BYTES), (M_TRIM_THRESHOLD, KEPT_BYTES))
    return all([mallopt(option, value) for option, value in options])
