"""Files as a checkpoint may name them: reached only where they may be, opened only if regular, mapped once."""

from __future__ import annotations

import mmap
import os
import stat
import sys
import weakref
from pathlib import Path
from typing import IO, cast

from mythos_model.errors import CheckpointError, shown
from mythos_runtime.files import root_of

_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)  # Python names it from 3.13 on
_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}


def reach(folder: Path, name: str) -> Path | None:
    """The regular file `name` of a folder, None where there is none. It is looked at, not opened.

    Raises:
        CheckpointError: it is outside (`root_of`), or is no regular file.
    """
    if not name or "\0" in name or Path(name).is_absolute() or ".." in Path(name).parts:
        raise CheckpointError(f"{folder}: a file named {shown(name)!r} would be outside the folder; refused")
    path = folder / name
    try:
        real = path.resolve(strict=True)
    except FileNotFoundError:
        if path.is_symlink():
            raise CheckpointError(f"{path} is a link to {os.readlink(path)!r}, where nothing is") from None
        return None
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links; a name that no system has
        raise CheckpointError(f"{_short(path)} cannot be reached: {_reason(error)}") from error
    if not real.is_relative_to(root_of(folder)):
        raise CheckpointError(
            f"{path} is a link that leads outside the folder (to {real}); refused: copy the file there, or name it "
            "itself as the checkpoint"
        )
    check_regular(path)
    return path


def check_regular(path: Path) -> os.stat_result:
    """Raises CheckpointError where a path is no regular file that may be read; opens nothing."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        raise CheckpointError(f"there is no file {_short(path)}") from None
    except (OSError, ValueError) as error:  # ValueError: a null character
        raise CheckpointError(f"{_short(path)} cannot be reached: {_reason(error)}") from error
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "a device")
        raise CheckpointError(f"{path} is {kind}, expected a regular file")
    if not os.access(path, os.R_OK):
        raise CheckpointError(f"{path} may not be read by this user")
    return found


def _short(path: Path) -> str:
    return shown(str(path))


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error)


class Mapped:
    """The bytes of a regular file, mapped privately: tensors made of them may be written to, the file stays as it is.

    Attributes:
        path: the file.
        memory: all of its bytes.
    """

    def __init__(self, path: Path) -> None:
        if check_regular(path).st_size == 0:
            raise CheckpointError(f"{path} is empty; expected a .pt or .safetensors checkpoint")
        self.path = path
        try:
            with path.open("rb") as file:
                if sys.platform == "win32":
                    self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
                else:  # unreserved: what is only read needs no swap, so a file may be larger than the memory
                    flags = mmap.MAP_PRIVATE | _NORESERVE
                    self._map = mmap.mmap(file.fileno(), 0, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path} cannot be read: {_reason(error)}") from error
        self.memory = memoryview(self._map)

    def __len__(self) -> int:
        return len(self.memory)

    def stream(self) -> IO[bytes]:
        """The same bytes as a file to read from."""
        return cast(IO[bytes], self._map)

    def view(self, start: int, end: int) -> memoryview:
        """Some of the bytes. Their pages leave this process's memory again when nothing looks at them any more."""
        view = self.memory[start:end]
        first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE  # whole pages: others may look at those that are shared
        length = end // mmap.PAGESIZE * mmap.PAGESIZE - first
        if length > 0 and hasattr(self._map, "madvise"):
            weakref.finalize(view, self._map.madvise, mmap.MADV_DONTNEED, first, length).atexit = False
        return view
