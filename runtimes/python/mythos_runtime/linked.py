"""Weights that a bundle does not hold: they stay in the user's own checkpoint, and are mapped from there.

    manifest.links                                     # Links: which files, with their hashes; which tensor is where
    weights = open_links(folder, manifest.links)       # {name: array}, no byte of them copied
    session.run({**inputs, **weights})                 # a graph takes them as inputs

A tensor may be put together of several stretches of a file, as a mixture's experts are, which a checkpoint has one by
one: pages of the file are mapped beside each other, and only the page at a seam is copied. Where stretches do not lie
alike within their pages, the tensor is read into memory instead.

A manifest may come from anybody, and name any file of this machine. So a file is opened only if it is a regular one,
and no byte of it is used before its SHA-256 was held to the manifest's: whoever wrote the manifest can only refer to
what they know already. That check is not deferred by `verify="sizes"`, unless the user named the file (`weights=`).
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import math
import mmap
import os
import stat
import sys
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mythos_runtime.errors import BundleError
from mythos_runtime.fields import Fields

DTYPES = {"float32": 4, "float16": 2}
MOST_PATH = 4096
_FIXED = 0x10  # MAP_FIXED, on Linux and macOS
_PIECE = 8 << 20

_checked: set[tuple[object, ...]] = set()  # files whose hash was held to a manifest's in this process
_spans: dict[int, list[tuple[int, int]]] = {}  # of a region, by its address: what is mapped there from a file, and
# nothing that was copied into memory, which would be lost


@dataclass(frozen=True)
class LinkedFile:
    """A file outside of the bundle: absolute, or relative to the bundle's folder."""

    path: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Stretch:
    """Bytes `start` to `start + bytes` of a file, which is counted from 0."""

    file: int
    start: int
    bytes: int


@dataclass(frozen=True)
class LinkedTensor:
    """A tensor whose elements are in stretches, one behind the other."""

    dtype: str
    shape: tuple[int, ...]
    stretches: tuple[Stretch, ...]

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * DTYPES[self.dtype]

    @property
    def mappable(self) -> bool:
        """Whether no more than pages at seams have to be copied."""
        return all(not apart for _, _, apart in self._places())

    def _places(self) -> Iterator[tuple[Stretch, int, int]]:
        """Each stretch, where it begins in the tensor's memory, and how far off that is from its place in a page."""
        at = self.stretches[0].start % mmap.PAGESIZE if self.stretches else 0
        for stretch in self.stretches:
            yield stretch, at, (stretch.start - at) % mmap.PAGESIZE
            at += stretch.bytes


@dataclass(frozen=True)
class Links:
    """What the field `links` of a manifest says."""

    files: tuple[LinkedFile, ...]
    tensors: Mapping[str, LinkedTensor]

    @property
    def bytes(self) -> int:
        """Of the tensors."""
        return sum(tensor.bytes for tensor in self.tensors.values())

    def to_json(self) -> dict[str, Any]:
        return {
            "files": [{"path": file.path, "sha256": file.sha256, "bytes": file.bytes} for file in self.files],
            "tensors": {
                name: {
                    "dtype": tensor.dtype,
                    "shape": list(tensor.shape),
                    "stretches": [vars(stretch) for stretch in tensor.stretches],
                }
                for name, tensor in self.tensors.items()
            },
        }


def read_links(top: Fields) -> Links | None:
    """The field `links`; None where there is none. Raises BundleError."""
    if top.peek("links") is None:
        top.take("links", None)
        return None
    fields = top.inner("links")
    files = []
    for entry in fields.items("files"):
        path, sha256 = entry.text("path"), entry.text("sha256")
        if len(path.encode()) > MOST_PATH:
            raise entry.fail("path", f"a path of at most {MOST_PATH} bytes", path)
        if len(sha256) != 64 or set(sha256) - set("0123456789abcdef"):
            raise entry.fail("sha256", "64 lower-case hexadecimal digits", sha256)
        files.append(LinkedFile(path, sha256, entry.integer("bytes")))
        entry.done()
    tensors, listed = {}, fields.inner("tensors")
    for name in listed.names():
        tensors[name] = _tensor(listed.inner(name), files)
    fields.done()
    return Links(tuple(files), tensors)


def _tensor(fields: Fields, files: list[LinkedFile]) -> LinkedTensor:
    dtype = fields.choice("dtype", tuple(DTYPES))
    shape = fields.listed("shape")
    if not shape or not all(type(size) is int and 0 < size < 1 << 40 for size in shape):
        raise fields.fail("shape", "a list of positive integers", shape)
    stretches = []
    for entry in fields.items("stretches"):
        found = Stretch(entry.integer("file", 0, len(files) - 1), entry.integer("start"), entry.integer("bytes", 1))
        if found.start + found.bytes > files[found.file].bytes:
            raise entry.fail("bytes", "a stretch that ends within its file", str(found.bytes))
        stretches.append(found)
        entry.done()
    tensor = LinkedTensor(dtype, tuple(shape), tuple(stretches))
    if sum(stretch.bytes for stretch in stretches) != tensor.bytes:
        raise fields.fail("stretches", f"stretches of {tensor.bytes} bytes together", str(len(stretches)))
    fields.done()
    return tensor


def open_links(
    folder: Path, links: Links | None, given: Path | None = None, verify_hashes: bool = True
) -> dict[str, np.ndarray]:
    """The tensors, mapped for reading: arrays that keep their mappings. Empty without links.

    Args:
        given: where the user says that the files are, instead of the manifest: the file, or a folder with files of
            their names.
        verify_hashes: whether the content of files that are `given` is checked; that of others always is.

    Raises:
        BundleError: a file is missing, no regular file, or not the one that was linked.
    """
    if links is None:
        return {}
    found = [_found(folder, file, given) for file in links.files]
    for path, file in zip(found, links.files, strict=True):
        _check(folder, path, file, verify_hashes or given is None)
    try:
        handles = [os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0)) for path in found]
    except OSError as error:
        raise BundleError(f"{folder}: its weights cannot be read: {error}") from error
    try:
        return {name: _mapped(handles, tensor) for name, tensor in links.tensors.items()}
    except OSError as error:
        raise BundleError(f"{folder}: its weights cannot be mapped: {error}") from error
    finally:
        for handle in handles:
            os.close(handle)


def trust(path: Path, sha256: str) -> None:
    """Note that this process has hashed a file, as it is now."""
    _checked.add(_identity(os.stat(path), sha256))


def forget(address: int) -> None:
    """Take the pages of a linked tensor, which begins at this address, out of this process's memory; they come back as
    they are looked at."""
    for start, size in _spans.get(address // mmap.PAGESIZE * mmap.PAGESIZE, ()):
        _libc().madvise(start, size, mmap.MADV_DONTNEED)


def _identity(found: os.stat_result, sha256: str) -> tuple[object, ...]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, sha256


def _found(folder: Path, file: LinkedFile, given: Path | None) -> Path:
    if given is None:
        return folder / file.path
    return given / Path(file.path).name if given.is_dir() else given


def _check(folder: Path, path: Path, file: LinkedFile, verify_hash: bool) -> None:
    """Hold a file to what the manifest says of it."""
    advice = "put it back, or say where it is now (load(..., weights=PATH), --weights PATH)"
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            raise BundleError(f"{folder}: its weights should be in {path}, which is no regular file; {advice}")
        if found.st_size != file.bytes:
            raise BundleError(
                f"{folder}: its weights are in {path}, which has {found.st_size} bytes, and had {file.bytes} at the "
                "export: it was changed, so export the model again, or put the old file back"
            )
        identity = _identity(found, file.sha256)
        if not verify_hash or identity in _checked:
            return
        with open(path, "rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != file.sha256:
                raise BundleError(
                    f"{folder}: its weights are in {path}, whose content is not that of the export (its SHA-256 "
                    "differs from the manifest's): export the model again, or put the old file back"
                )
        _checked.add(identity)
    except (FileNotFoundError, NotADirectoryError):
        raise BundleError(f"{folder}: its weights are in {path}, which is not there; {advice}") from None
    except (OSError, ValueError) as error:
        raise BundleError(f"{folder}: its weights are in {path}, which cannot be read: {error}") from error


def _mapped(handles: list[int], tensor: LinkedTensor) -> np.ndarray:
    dtype = np.dtype(tensor.dtype)
    if sys.platform == "win32":  # which maps nothing to where it is told
        data: Any = bytearray(tensor.bytes)
        at = 0
        for stretch in tensor.stretches:
            _read(handles[stretch.file], stretch.start, memoryview(data)[at : at + stretch.bytes])
            at += stretch.bytes
        return np.frombuffer(data, dtype).reshape(tensor.shape)
    first = tensor.stretches[0].start % mmap.PAGESIZE
    region = _Region(first + tensor.bytes)
    for stretch, at, apart in tensor._places():
        whole = -(-at // mmap.PAGESIZE) * mmap.PAGESIZE, (at + stretch.bytes) // mmap.PAGESIZE * mmap.PAGESIZE
        copied = [(at, at + stretch.bytes)]
        if not apart and whole[0] < whole[1]:
            region.map(whole[0], whole[1] - whole[0], handles[stretch.file], stretch.start + whole[0] - at)
            copied = [(at, whole[0]), (whole[1], at + stretch.bytes)]
        for start, end in copied:
            if start < end:
                _read(handles[stretch.file], stretch.start + start - at, region.view[start:end])
    return np.frombuffer(region.view, dtype, math.prod(tensor.shape), first).reshape(tensor.shape)


def _read(handle: int, start: int, into: memoryview) -> None:
    for at in range(0, len(into), _PIECE):
        piece = into[at : at + _PIECE]
        os.lseek(handle, start + at, os.SEEK_SET)
        data = os.read(handle, len(piece))
        if len(data) < len(piece):
            raise OSError("the file became shorter while it was read")
        piece[:] = data


class _Region:
    """Addresses in a row, for mappings beside each other; given back when nothing looks at `memory` any more."""

    def __init__(self, size: int) -> None:
        size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        self.base = self._call(None, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANON, -1, 0)
        self.memory = (ctypes.c_char * size).from_address(self.base)
        self.view = memoryview(self.memory).cast("B")
        self.spans = _spans[self.base] = []
        weakref.finalize(self.memory, _give_back, self.base, size).atexit = False

    def map(self, at: int, size: int, handle: int, start: int) -> None:
        self._call(self.base + at, size, mmap.PROT_READ, mmap.MAP_PRIVATE | _FIXED, handle, start)
        self.spans.append((self.base + at, size))

    def _call(self, *arguments: Any) -> int:
        address = _libc().mmap(*arguments)
        if address in (None, ctypes.c_void_p(-1).value):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return int(address)


def _give_back(base: int, size: int) -> None:
    del _spans[base]
    _libc().munmap(base, size)


@functools.cache
def _libc() -> Any:
    """mmap and what goes with it: Python's own module maps nothing to where it is told."""
    library = ctypes.CDLL(None, use_errno=True)
    library.mmap.restype = ctypes.c_void_p
    library.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_longlong]
    library.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    library.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return library
