"""The files of a bundle: where a listed path may be, and whether the file is the one that was listed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path

from mythos_runtime.errors import BundleError
from mythos_runtime.fields import is_printable


@dataclass(frozen=True)
class FileEntry:
    """What the manifest says of one file: SHA-256 in lower-case hexadecimal, and size in bytes."""

    sha256: str
    bytes: int


def path_problem(path: str) -> str | None:
    """Why a path may not stand in a manifest; None where it may.

    Allowed: relative, parts joined by '/', no part empty, '.' or '..', no backslash, colon or control character
    (they mean something else on another system), parts of at most 255 bytes, 1024 bytes in all.
    """
    if not is_printable(path) or "\\" in path or ":" in path:
        return "it holds a backslash, a colon or an unprintable character"
    if path.startswith("/"):
        return "it is absolute"
    parts = path.split("/")
    if ".." in parts:
        return "it leaves the bundle"
    if "" in parts or "." in parts:
        return "it has an empty part"
    if any(len(part.encode()) > 255 for part in parts) or len(path.encode()) > 1024:
        return "it is too long"
    return None


def root_of(folder: Path) -> Path:
    """How far links in a folder may lead: nowhere else; in the hub's cache, whose snapshots are links to its blobs
    (`models--owner--name/snapshots/REVISION/file -> ../../blobs/HASH`), within that model's part of the cache."""
    real = folder.resolve()
    for parent in real.parents:
        if parent.name == "snapshots" and parent.parent.name.startswith("models--"):
            return parent.parent
    return real


def locate(folder: Path, path: str) -> Path:
    """The file a manifest lists, inside the bundle and regular; BundleError where it is missing or is outside.

    Symbolic links are followed only as far as `root_of` the folder lets them.
    """
    problem = path_problem(path)
    if problem:
        raise BundleError(f"{folder}: the path {ascii(path)} may not stand in a manifest: {problem}")
    file = folder / path
    try:
        real = file.resolve(strict=True)
        inside = real.is_relative_to(root_of(folder))
        regular = stat.S_ISREG(os.stat(real).st_mode)
    except FileNotFoundError:
        raise BundleError(f"{folder}: the file {path} is missing; export or copy the bundle again") from None
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links
        raise BundleError(f"{folder}: the file {path} cannot be reached: {error}") from error
    if not inside:
        raise BundleError(f"{folder}: the file {path} is a link that leaves the bundle (to {real})")
    if not regular:
        raise BundleError(f"{folder}: {path} is not a regular file")
    return file


def is_gone(folder: Path, path: str) -> bool:
    """Whether nothing is at a listed path. What cannot be reached is no such thing: `check_file` says what it is."""
    try:
        os.stat(folder / path)
    except OSError as error:
        return isinstance(error, FileNotFoundError)
    return False


def mode_of(path: Path) -> int:
    """The kind of what is at a path, 0 where there is nothing; OSError where that cannot be told."""
    try:
        return os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0


def describe(file: Path) -> FileEntry:
    """The manifest's entry for a file as it is there now."""
    with open(file, "rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return FileEntry(digest, stream.tell())


def write_whole(path: Path, content: bytes) -> None:
    """Write a file in one step, so that no reader sees half of it; its mode follows the umask.

    A failure leaves what was there before, and nothing beside it. Raises OSError, which names `path`.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with open(temporary, "xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):  # it may never have been there
            os.unlink(temporary)
        if isinstance(error, OSError):
            error.filename, error.filename2 = str(path), None  # the temporary name is nobody's business
        raise


def check_file(folder: Path, path: str, entry: FileEntry, verify_hash: bool) -> None:
    """Hold a file against its entry: place and size always, content where asked."""
    file = locate(folder, path)
    try:
        size = os.stat(file).st_size
        if size != entry.bytes:
            raise BundleError(
                f"{folder}: the file {path} has {size} bytes, the manifest says {entry.bytes}: it is cut off or "
                "was changed; export or copy the bundle again"
            )
        if verify_hash and describe(file).sha256 != entry.sha256:
            raise BundleError(
                f"{folder}: the content of {path} is not what was exported (its SHA-256 differs from the manifest's); "
                "export or copy the bundle again"
            )
    except OSError as error:
        raise BundleError(f"{folder}: the file {path} cannot be read: {error}") from error
