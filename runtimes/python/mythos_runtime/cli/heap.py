"""What the C library does with memory that was freed, in the processes of the command line."""

from __future__ import annotations

import ctypes
import sys

MAPPED = 512 << 10
"""Bytes from which on a block is mapped by itself."""
KEPT = 16 << 20
"""Bytes that are kept at the end of the heap."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h


def return_large_blocks() -> bool:
    """Have glibc give large blocks back to the system as soon as they are freed; whether it is there to do so.

    By itself it raises the size from which on it does to that of the largest block freed so far, and intermediate
    results of a prompt then leave holes in the heap that nobody fills: a third of what a process of 1b holds beside its
    weights. A setting of the whole process, which a library must not change: only programs call it.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    return mallopt is not None and bool(mallopt(_MMAP_THRESHOLD, MAPPED) and mallopt(_TRIM_THRESHOLD, KEPT))
