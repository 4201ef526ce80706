"""Files that a user named for output: looked at before the work, written whole, and what is wrong in one sentence.

A disk that is full or closed is the machine's fault (3), a path that cannot be one is the request's (2).
"""

from __future__ import annotations

import contextlib
import errno
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mythos_runtime.errors import RequestError, RuntimeBundleError, StorageError
from mythos_runtime.files import write_whole

FULL = {
    errno.ENOSPC: "there is no space left on the disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "a file would grow larger than is allowed (ulimit -f, or the file system)",
    errno.EIO: "the disk reports an input/output error",
}
CLOSED = {
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "operation not permitted",
}
_WRONG = {errno.EISDIR: "it is a folder", errno.ENOTDIR: "a file stands where a folder should"}


def unwritable(path: Path, error: OSError, option: str) -> RuntimeBundleError:
    """The error for a file or folder, named with an option, that the system did not let us write."""
    if error.errno in FULL:
        return StorageError(f"cannot write {path}: {FULL[error.errno]}; make room, or name another place with {option}")
    if error.errno in CLOSED:
        return StorageError(f"cannot write {path}: {CLOSED[error.errno]}; name another place with {option}")
    if isinstance(error, FileNotFoundError):
        words = f"there is no folder {path.parent}; make it, or name another place with {option}"
        return RequestError(f"cannot write {path}: {words}")
    words = _WRONG.get(error.errno or 0, error.strerror or str(error))
    return RequestError(f"cannot write {path}: {words}; name another place with {option}")


@contextlib.contextmanager
def writing(path: Path, option: str) -> Iterator[None]:
    """In here the system's errors are about this file or folder. Raises StorageError, RequestError."""
    try:
        yield
    except OSError as error:
        raise unwritable(path, error, option) from error


def check_file_place(path: Path, option: str) -> None:
    """Refuse before the work what could not be written after it; nothing is made. Raises as `writing`."""
    with writing(path, option):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "")
        if not _is_special(path):
            _try(path.resolve().parent)


def check_folder_place(folder: Path, option: str) -> None:
    """The same for a folder, which will be made where it is not there: the nearest one above it is tried."""
    with writing(folder, option):
        _try(next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists()))


def _try(folder: Path) -> None:
    with tempfile.TemporaryFile(dir=folder, buffering=0) as stream:
        stream.write(b"\0")  # a full disk still takes names


def write_output(path: Path, content: str | bytes, option: str) -> None:
    """Write a file whole, or leave what was there before. Raises as `writing`."""
    data = content.encode() if isinstance(content, str) else content
    with writing(path, option):
        if _is_special(path):
            path.write_bytes(data)  # /dev/stdout or a pipe: written to, never replaced
        else:
            write_whole(path.resolve(), data)  # where a link leads, the link stays


def _is_special(path: Path) -> bool:
    return path.exists() and not path.is_file() and not path.is_dir()
