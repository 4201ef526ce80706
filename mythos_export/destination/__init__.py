"""Where a bundle goes: filled out of sight, put under its name by one rename, and nothing else is ever taken away.

with staged(Path("bundle"), force=False, checkpoint=Path("model.pt")) as folder:
    ...                                 # fill it; the manifest is written last

occupant    what is at the destination, and whether it may be replaced
stage       the folder that is filled, locked as long as this process lives
renames     the last step
storage     a full disk and its like
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from mythos_export.destination import renames
from mythos_export.destination.occupant import Occupant, check_replaceable, find_occupant, real_place, why_not_a_bundle
from mythos_export.destination.stage import made_parents, make_way, new_stage
from mythos_export.destination.storage import flush_folder, storage_errors
from mythos_export.errors import PackageError
from mythos_runtime.staging import NEW, OLD, mend

__all__ = ["staged"]


@contextlib.contextmanager
def staged(output: Path, force: bool, checkpoint: Path | None = None) -> Iterator[Path]:
    """A folder to fill. It takes the name `output` when the block ends well, and vanishes when it does not.

    Where `output` is a symbolic link it stays one, and its target is replaced.

    Args:
        force: whether a bundle that is there is replaced; anything else never is.
        checkpoint: what the bundle is made from; no folder that is it, holds it or is in it is replaced.

    Raises:
        PackageError: the destination is no place for a bundle, holds what may not be replaced, is being written by
            another export, or was written by one meanwhile.
        StorageError: it cannot be written to.
        BundleError: an export was killed while it replaced the bundle, and that cannot be mended.
    """
    place = real_place(output)
    with storage_errors(output, place):
        mend(place)
        before = find_occupant(output, place)
        check_replaceable(output, before, force, checkpoint)
        with made_parents(place), new_stage(place) as stage:
            make_way(output, place, stage)
            yield stage / NEW
            flush_folder(stage / NEW)
            _publish(output, place, stage, before, checkpoint)


def _publish(output: Path, place: Path, stage: Path, before: Occupant | None, checkpoint: Path | None) -> None:
    """Give the finished bundle its name, if there is now what was there when the export began, or nothing."""
    found = find_occupant(output, place)
    if found is not None and (before is None or found.identity != before.identity):
        raise _overtaken(output)
    check_replaceable(output, found, True, checkpoint)
    if found is None:
        try:
            renames.rename_new(stage / NEW, place)
        except FileExistsError:
            raise _overtaken(output) from None
    elif renames.exchange(stage / NEW, place):
        problem = why_not_a_bundle(stage / NEW)
        if problem is not None and renames.exchange(stage / NEW, place):
            raise PackageError(f"{output} was left as it is, for since the export began {problem}")
    else:
        _rename_twice(place, stage)
    flush_folder(place.parent)


def _rename_twice(place: Path, stage: Path) -> None:
    """Where two names cannot be exchanged; `mythos_runtime.staging.mend` finishes what is killed in between."""
    os.rename(place, stage / OLD)
    try:
        renames.rename_new(stage / NEW, place)
    except BaseException:
        renames.rename_new(stage / OLD, place)
        raise


def _overtaken(output: Path) -> PackageError:
    return PackageError(f"{output} was written by somebody else while this export ran; it was left as it is")
