"""What the C library does with memory that was freed, in the processes of the command line."""

from __future__ import annotations

import ctypes
import sys

MAPPED = 4 << 20
"""Bytes from which on a block is mapped by itself. Intermediate results of a chunk of a prompt are smaller: mapping
each of them anew costs a prompt an eighth of its time."""
KEPT = 16 << 20
"""Bytes that are kept at the end of the heap."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h


def return_large_blocks() -> bool:
    """Have glibc give large blocks back to the system as soon as they are freed; whether it is there to do so.

    By itself it raises the size from which on it does to that of the largest block freed so far, and large blocks then
    leave holes in the heap. A setting of the whole process, which a library must not change: only programs call it.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    return mallopt is not None and bool(mallopt(_MMAP_THRESHOLD, MAPPED) and mallopt(_TRIM_THRESHOLD, KEPT))
