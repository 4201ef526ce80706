"""One pass over a checkpoint's files: their hash, their checksums, and whether their numbers are numbers."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from io import FileIO
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mythos_model.checkpoint.stored import Storage, Stored
from mythos_model.errors import CheckpointError

_WORTH_A_THREAD = 1 << 18
_PIECE = 4 << 20  # bytes that are read, hashed and looked at together


def examine_files(files: Iterable[Path], tensors: Mapping[str, Stored]) -> tuple[dict[Path, str], list[str]]:
    """The SHA-256 of each file, and which tensors hold NaN or infinity.

    Each file is read once and never held; checksums are compared on the way.

    Raises:
        CheckpointError: a file cannot be read, or its bytes do not have the checksum that it promises.
    """
    storages = {id(stored.storage): stored.storage for stored in tensors.values()}.values()
    doubtful: set[int] = set()
    digests: dict[Path, str] = {}
    with ThreadPoolExecutor(1) as pool:
        for path in files:
            inside = sorted((s for s in storages if s.file.path == path), key=lambda s: s.start)
            digests[path] = _examine_file(path, inside, doubtful, pool)
    broken = [
        name
        for name, stored in tensors.items()
        if (id(stored.storage) in doubtful or stored.dtype != stored.storage.dtype) and not _finite(stored.tensor())
    ]
    return digests, broken


def together(digests: Mapping[Path, str]) -> str:
    """One hash of a checkpoint: its file's, or of several files over their names and hashes."""
    if len(digests) == 1:
        return next(iter(digests.values()))
    lines = "".join(f"{path.name} {digest}\n" for path, digest in digests.items())
    return hashlib.sha256(lines.encode()).hexdigest()


def _examine_file(path: Path, storages: list[Storage], doubtful: set[int], pool: ThreadPoolExecutor) -> str:
    """The hash of one file; storages that hold something that is no number are put among the `doubtful`."""
    sha = hashlib.sha256()
    buffer = memoryview(bytearray(_PIECE))

    def look(piece: memoryview, storage: Storage, crc: int) -> int:
        if storage.dtype is not None and id(storage) not in doubtful and _may_be_broken(piece, storage.dtype):
            doubtful.add(id(storage))
        return zlib.crc32(piece, crc) if storage.crc is not None else 0

    def pieces(file: FileIO, start: int, end: int) -> Iterator[memoryview]:
        for at in range(start, end, _PIECE):
            piece = buffer[: min(end - at, _PIECE)]
            if file.readinto(piece) < len(piece):
                raise CheckpointError(f"{path} became shorter while it was read")
            yield piece

    try:
        with path.open("rb", buffering=0) as file:
            at = 0
            for storage in storages:
                for piece in pieces(file, at, storage.start):  # between storages: headers
                    sha.update(piece)
                crc = 0
                for piece in pieces(file, storage.start, storage.end):
                    if len(piece) < _WORTH_A_THREAD:
                        sha.update(piece)
                        crc = look(piece, storage, crc)
                    else:
                        looked = pool.submit(look, piece, storage, crc)
                        sha.update(piece)
                        crc = looked.result()
                storage.compare(crc)
                at = storage.end
            for piece in pieces(file, at, os.fstat(file.fileno()).st_size):
                sha.update(piece)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    return sha.hexdigest()


# Per dtype: the unsigned integer of its size and the bits that are all set in NaN and infinity, and in nothing else.
_NOT_FINITE: dict[torch.dtype, tuple[str, int]] = {
    torch.float64: ("<u8", 0x7FF << 52),
    torch.float32: ("<u4", 0xFF << 23),
    torch.float16: ("<u2", 0x1F << 10),
    torch.bfloat16: ("<u2", 0xFF << 7),
    torch.float8_e5m2: ("u1", 0x7C),
    torch.float8_e4m3fn: ("u1", 0x7F),
}


def _may_be_broken(piece: memoryview, dtype: torch.dtype) -> bool:
    """Whether bytes hold a number that is none, as integers on this thread alone: PyTorch would start others."""
    if dtype not in _NOT_FINITE:
        return dtype.is_floating_point
    kind, mask = _NOT_FINITE[dtype]
    bits = np.frombuffer(piece, kind, len(piece) // dtype.itemsize)
    return bits.size > 0 and int((bits & np.asarray(mask, kind)).max()) == mask


def _finite(values: Tensor) -> bool:
    return bool(torch.isfinite(values).all())
