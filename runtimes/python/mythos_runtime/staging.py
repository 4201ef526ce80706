"""Where a bundle is while it is made, and how what a killed export left there is told from what is being written.

Beside a destination NAME, each export has one folder of its own:

    .NAME.0123abcd.partial/     gone when the export has ended
        lock                    flock(2) on it is held as long as the export lives, on whichever host, in any container
        bundle/                 the files; it takes the name NAME by one rename
        old/                    what it replaces, on file systems that cannot exchange two names in one step

Between the two renames of such a file system there is no NAME. A process that was killed just there left the old
bundle in `old`, whole; `mend` puts it back.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

from mythos_runtime.errors import BundleError

try:
    import fcntl
except ImportError:  # Windows: nothing is known to be abandoned, so nothing is taken away
    fcntl = None  # type: ignore[assignment]

LOCK, NEW, OLD = "lock", "bundle", "old"
_BETWEEN_SECONDS = 5.0  # what a living export is given for its two renames


class State(Enum):
    """Whether the export that a stage belongs to still runs; UNKNOWN where locks do not work or are not allowed."""

    ALIVE = "alive"
    ABANDONED = "abandoned"
    UNKNOWN = "unknown"


def stage_name(name: str, token: str) -> str:
    """The folder in which the bundle `name` is made; `token` is 8 hexadecimal digits that no other has."""
    return f".{name}.{token}.partial"


def stages_of(destination: Path) -> list[Path]:
    """The folders in which bundles of that name are, or were, being made."""
    pattern = re.compile(rf"\.{re.escape(destination.name)}\.[0-9a-f]{{8}}\.partial", re.DOTALL)
    try:
        with os.scandir(destination.parent) as entries:
            names = [entry.name for entry in entries if pattern.fullmatch(entry.name) and not entry.is_symlink()]
    except OSError:  # no such folder, or one that may not be listed
        return []
    return [destination.parent / name for name in sorted(names)]


def lock(descriptor: int) -> State:
    """Take the lock of an open lock file; ABANDONED, nobody's, means that it is now this process's."""
    if fcntl is None:
        return State.UNKNOWN
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return State.ALIVE
    except OSError:
        return State.UNKNOWN
    return State.ABANDONED


@contextlib.contextmanager
def state_of(stage: Path) -> Iterator[State]:
    """How it stands with a stage; the lock of an abandoned one is held until the block ends."""
    descriptor = None
    for access in (os.O_RDWR, os.O_RDONLY):  # another user's may only be read, and NFS locks only what it may write
        with contextlib.suppress(OSError):
            descriptor = os.open(stage / LOCK, access | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
            break
    if descriptor is None:
        yield State.UNKNOWN
        return
    try:
        yield lock(descriptor)
    finally:
        os.close(descriptor)


def mend(destination: Path) -> None:
    """Give a bundle its name back where an export was killed while it replaced it; else do nothing.

    Raises:
        BundleError: the old bundle is there, and cannot be given its name.
    """
    destination = Path(os.path.realpath(destination))
    if os.path.lexists(destination):
        return
    for stage in stages_of(destination):
        if not (stage / OLD).is_dir():
            continue
        with state_of(stage) as state:
            if state is not State.ABANDONED:
                _wait_for(destination)  # it may be between its renames this very moment
            if state is State.ALIVE or os.path.lexists(destination):
                return
            try:
                os.rename(stage / OLD, destination)
            except FileNotFoundError:  # another process mended it
                return
            except OSError as error:
                raise BundleError(
                    f"{destination} was being replaced when that was stopped; the bundle is whole in {stage / OLD}, "
                    f"but cannot be renamed back: {error.strerror}"
                ) from error
            return


def _wait_for(destination: Path) -> None:
    deadline = time.monotonic() + _BETWEEN_SECONDS
    while not os.path.lexists(destination) and time.monotonic() < deadline:
        time.sleep(0.01)
