"""What can be wrong with a disk, as one sentence and exit code 3, whoever met it."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mythos_export.errors import ExportError, PackageError, StorageError
from mythos_runtime.outputs import CLOSED, FULL


@contextlib.contextmanager
def storage_errors(output: Path, place: Path) -> Iterator[None]:
    """A full or closed disk becomes StorageError, also where another error was made of it already; what else is wrong
    with the names of files at `place` becomes PackageError."""
    try:
        yield
    except (OSError, ExportError) as error:
        cause = _os_error(error)
        if cause is None:
            raise
        ours = cause.filename is not None and _is_near(cause.filename, place)
        where = output if cause.filename is None or ours else cause.filename
        if cause.errno in FULL:
            raise StorageError(f"cannot write {where}: {FULL[cause.errno]}; no bundle was written") from error
        if cause.errno in CLOSED and ours:
            raise StorageError(f"cannot write {where}: {CLOSED[cause.errno]}; no bundle was written") from error
        if error is cause and ours:
            raise PackageError(f"cannot write {where}: {cause.strerror}; choose another folder with -o") from error
        raise


def _os_error(error: BaseException | None) -> OSError | None:
    """The system's own error among the causes of an error."""
    while error is not None and not (isinstance(error, OSError) and error.errno is not None):
        error = error.__cause__
    return error


def _is_near(filename: object, place: Path) -> bool:
    """Whether a file is the destination, is in it or in a stage of it, or is a folder above it."""
    if not isinstance(filename, (str, bytes)):
        return False
    path = Path(os.path.abspath(os.fsdecode(filename)))
    if path.is_relative_to(place) or place.is_relative_to(path):
        return True
    return path.is_relative_to(place.parent) and path.relative_to(place.parent).parts[0].startswith(f".{place.name}.")


def check_room(folder: Path, needed: int) -> None:
    """Refuse before the work what cannot fit: at least `needed` bytes are going to be written into `folder`.

    Raises:
        StorageError: the disk has less left.
    """
    usage = shutil.disk_usage(folder)
    if usage.total and usage.free < needed:  # some network file systems tell nothing
        raise StorageError(
            f"the bundle takes at least {needed / 1e6:.1f} MB, and the disk has {usage.free / 1e6:.1f} MB left; "
            "no bundle was written"
        )


def flush_folder(folder: Path) -> None:
    """Have the system write a folder's names to the disk, where it can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class Guarded(io.RawIOBase):
    """A new file for a writer in C++ that would end the process where a write fails, such as torch's.

    It is told that all went well; what went wrong is kept, and raised when the file is closed.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._stream = path.open("wb")
        self._error: OSError | None = None

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:  # torch asks, and goes back to the start when all is written
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return offset

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        if self._error is None:
            try:
                self._stream.write(data)
            except OSError as error:
                self._error = error
        return size

    def close(self) -> None:
        """Raises OSError where any write failed."""
        if self.closed:
            return
        super().close()
        try:
            self._stream.close()
        except OSError as error:
            self._error = self._error or error
        if self._error is not None:
            raise self._error
