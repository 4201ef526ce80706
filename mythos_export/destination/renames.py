"""Renames that lose nothing: one that never replaces, and one that exchanges two names in one step."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

_AT_FDCWD = -100
_NOREPLACE, _EXCHANGE = 1, 2
# The kernel or the file system does not know the flag.
_UNKNOWN = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP)


def rename_new(source: Path, target: Path) -> None:
    """Rename a folder to a name that is free.

    Raises:
        FileExistsError: the name is taken.
        OSError: any other reason of the system's.
    """
    if _renameat2(source, target, _NOREPLACE):
        return
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    os.rename(source, target)  # in between, only an empty folder could be lost: rename replaces no other


def exchange(first: Path, second: Path) -> bool:
    """Swap two names in one step that no kill and no reader comes in between; False where that cannot be done.

    Raises:
        OSError: it can, and failed.
    """
    return _renameat2(first, second, _EXCHANGE)


def _renameat2(source: Path, target: Path, flags: int) -> bool:
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if os.name == "posix" else None
    if call is None:
        return False
    if call(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), ctypes.c_uint(flags)) == 0:
        return True
    number = ctypes.get_errno()
    if number in _UNKNOWN:
        return False
    raise OSError(number, os.strerror(number), str(source), None, str(target))
