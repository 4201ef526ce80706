"""What is at a destination, and whether an export may replace it.

Only a bundle of ours may be: a folder with a manifest that this program wrote, in any format version, and nothing that
this manifest does not list. Names and kinds of files are looked at, and as much of the manifest as every version has.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mythos_export.errors import PackageError
from mythos_runtime.errors import BundleError
from mythos_runtime.fields import MAX_JSON_BYTES, parse_json
from mythos_runtime.files import path_problem
from mythos_runtime.manifest import FORMAT_VERSION, MANIFEST

_FIELDS = {"format_version", "created", "precision", "source", "targets", "tool_versions", "files"}


@dataclass(frozen=True)
class Occupant:
    """What is at a destination.

    Attributes:
        place: its real path.
        identity: device, inode and the manifest's time: another one's differ.
        problem: why it is not to be replaced; None where it may be.
    """

    place: Path
    identity: tuple[int, ...]
    problem: str | None


def real_place(output: Path) -> Path:
    """The path of a destination with links followed. Raises PackageError where that is no place for a bundle."""
    if output.name in ("", ".."):
        raise PackageError(f"{str(output)!r} names no folder of its own; give the bundle one: -o FOLDER")
    try:
        place = Path(os.path.realpath(output))
        if place.is_symlink():
            raise PackageError(f"{output} is a symbolic link that leads to itself; choose another folder with -o")
        if os.path.lexists(place) and (os.path.ismount(place) or place.samefile(os.curdir)):
            raise PackageError(f"{output} is a mount point or the current folder; name a folder in it: -o FOLDER")
    except OSError as error:  # the current folder is gone, say
        raise PackageError(f"{output} cannot be a bundle's folder: {error.strerror}") from error
    return place


def find_occupant(output: Path, place: Path) -> Occupant | None:
    """What is at a place now; None where nothing is."""
    try:
        found = os.lstat(place)
    except FileNotFoundError:
        return None
    except NotADirectoryError as error:
        raise PackageError(f"{output} cannot be a bundle's folder: a part of its path is a file") from error
    if not stat.S_ISDIR(found.st_mode):
        return Occupant(place, (found.st_dev, found.st_ino), "it is a file")
    try:
        changed = os.lstat(place / MANIFEST).st_mtime_ns
    except FileNotFoundError:
        changed = 0
    return Occupant(place, (found.st_dev, found.st_ino, changed), why_not_a_bundle(place))


def check_replaceable(output: Path, found: Occupant | None, force: bool, checkpoint: Path | None) -> None:
    """Raises PackageError where something is there that is to stay."""
    if found is None:
        return
    if not force:
        raise PackageError(f"{output} exists; choose another folder with -o, or replace a bundle with --force")
    if found.problem is not None:
        raise PackageError(
            f"{output} is not a bundle, or not only one, so --force does not replace it: {found.problem}; choose "
            "another folder with -o"
        )
    if checkpoint is not None and _entangled(found.place, checkpoint):
        raise PackageError(
            f"{output} is not replaced, because the checkpoint {checkpoint} is it, is in it or holds it; choose "
            "another folder with -o"
        )


def why_not_a_bundle(folder: Path) -> str | None:
    """Why a folder is not a bundle of ours with nothing else in it; None where it is one, or empty."""
    try:
        present = list(_walk(folder, ""))
        listed = _listed(folder / MANIFEST) if present else set()
    except BundleError as error:
        return str(error)
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    folders = {name[:end] for name in listed for end, letter in enumerate(name) if letter == "/"}
    for name, mode in present:
        if name not in (folders if stat.S_ISDIR(mode) else listed):
            return f"it holds {name}, which its {MANIFEST} does not list"
        if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
            return f"{name} in it is not a regular file"
    return None


def _walk(folder: Path, prefix: str) -> Iterator[tuple[str, int]]:
    """Path in the folder and mode of everything in it; no link is followed."""
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            mode = entry.stat(follow_symlinks=False).st_mode
            yield prefix + entry.name, mode
            if stat.S_ISDIR(mode):
                yield from _walk(folder / entry.name, f"{prefix}{entry.name}/")


def _listed(path: Path) -> set[str]:
    """The paths that a manifest lists, and its own. Raises BundleError where it is none that this program wrote."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0))
    except OSError as error:
        raise BundleError(f"it has no {MANIFEST} of a bundle ({error.strerror})") from error
    with open(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise BundleError(f"its {MANIFEST} is not a regular file")
        text = stream.read(MAX_JSON_BYTES + 1)
    manifest = parse_json(text, f"its {MANIFEST}")
    if not isinstance(manifest, dict) or not manifest.keys() >= _FIELDS:
        raise BundleError(f"its {MANIFEST} is not a bundle's")
    version, files = manifest["format_version"], manifest["files"]
    if type(version) is not int or not 1 <= version <= FORMAT_VERSION:
        raise BundleError(f"its {MANIFEST} has a format version that this program never wrote")
    if not isinstance(files, dict) or any(path_problem(name) or not _is_entry(files[name]) for name in files):
        raise BundleError(f"its {MANIFEST} does not list its files as a bundle's does")
    return {MANIFEST, *files}


def _is_entry(value: object) -> bool:
    return isinstance(value, dict) and {"sha256", "bytes"} <= value.keys()


def _entangled(place: Path, checkpoint: Path) -> bool:
    """Whether a folder is, holds or is in a checkpoint, or holds what the checkpoint's links lead to."""
    if not checkpoint.exists():
        return False
    real = Path(os.path.realpath(checkpoint))
    parts = [real]
    if real.is_dir():
        parts += [Path(os.path.realpath(entry)) for entry in real.iterdir() if entry.is_symlink()]
    return place.is_relative_to(real) or any(part.is_relative_to(place) for part in parts)
