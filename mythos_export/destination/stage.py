"""The folder that an export fills, beside its destination; `mythos_runtime.staging` says what is in it.

Which other stages are abandoned is told by their locks. A process number would not tell: it means something else on
another host, and in another container.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from mythos_export.errors import PackageError
from mythos_runtime.staging import LOCK, NEW, OLD, State, lock, stage_name, stages_of, state_of


@contextlib.contextmanager
def made_parents(place: Path) -> Iterator[None]:
    """Make the folders above a destination; those that were made vanish where the block fails."""
    made: list[Path] = []
    try:
        for folder in reversed(place.parents):
            if folder.is_dir():
                continue
            try:
                folder.mkdir()
                made.append(folder)
            except FileExistsError:
                if not folder.is_dir():
                    raise PackageError(f"{folder} is a file, so nothing can be put into it: {place}") from None
        yield
    except BaseException:
        for folder in reversed(made):
            with contextlib.suppress(OSError):  # somebody else put something there
                folder.rmdir()
        raise


@contextlib.contextmanager
def new_stage(place: Path) -> Iterator[Path]:
    """A stage of this export alone, locked until the block ends; then it is removed with whatever is in it."""
    stage, descriptor = _make(place)
    try:
        yield stage
    finally:
        remove(stage)
        os.close(descriptor)


def _make(place: Path) -> tuple[Path, int]:
    while True:
        stage = place.parent / stage_name(place.name, secrets.token_hex(4))
        try:
            stage.mkdir()
        except FileExistsError:
            continue
        try:
            descriptor = os.open(stage / LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        except FileNotFoundError:  # another export took the folder, still empty, for an abandoned one
            continue
        # The same may have happened to the lock file before it was locked.
        if lock(descriptor) is State.ALIVE or not _is(descriptor, stage / LOCK):
            os.close(descriptor)
            continue
        try:
            (stage / NEW).mkdir()
        except OSError:
            remove(stage)
            os.close(descriptor)
            raise
        return stage, descriptor


def _is(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def remove(stage: Path) -> None:
    """Remove a stage whose lock this process holds: the lock last, so that what is left can be judged again."""
    if (stage / OLD).exists() and (stage / NEW).exists():
        return  # stopped between two renames: the old bundle has no other name
    for part in (NEW, OLD):
        shutil.rmtree(stage / part, ignore_errors=True)
    if not any((stage / part).exists() for part in (NEW, OLD)):  # else this user may not: the next export tries again
        with contextlib.suppress(OSError):
            (stage / LOCK).unlink()
            stage.rmdir()


def make_way(output: Path, place: Path, mine: Path) -> None:
    """Remove what killed exports to the same name left behind, and give way to one that runs and began earlier.

    Raises:
        PackageError: there is such a one.
    """
    for stage in stages_of(place):
        if stage == mine:
            continue
        with state_of(stage) as state:
            if state is State.ABANDONED:
                remove(stage)
            elif state is State.ALIVE and _began(stage) < _began(mine):
                raise PackageError(
                    f"another export is writing {output} (its files are in {stage}); wait for it, or choose another "
                    "folder with -o"
                )
        with contextlib.suppress(OSError):
            stage.rmdir()  # one that was killed before it had a lock file; any other is not empty, and stays


def _began(stage: Path) -> tuple[int, str]:
    """When an export began; of two that began in one tick of the clock, one is the earlier all the same."""
    return os.stat(stage / LOCK).st_mtime_ns, stage.name
