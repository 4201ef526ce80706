"""Tensors where they are in files: shapes and places are known, values are read when somebody asks.

tensors = Tensors({"embed.weight": Stored(Storage(mapped, 4096, 8192, torch.float32), (32, 32))})
tensors["embed.weight"]    # a view of the file's bytes
"""

from __future__ import annotations

import weakref
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from mythos_model.checkpoint.files import Mapped
from mythos_model.checkpoint.pickled import MOST_AXES
from mythos_model.errors import CheckpointError

FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz)
READ_AS = torch.bfloat16  # what 8 bit floats become: it holds each of their values exactly


class Storage:
    """Bytes `start` to `end` of a file, all of one dtype (None: bytes), perhaps with a checksum.

    Attributes:
        crc: CRC-32 of the bytes, compared before the first use; None where the file has none, or they were compared.
        name: of the zip's member that has the checksum, for the error.
    """

    def __init__(
        self, file: Mapped, start: int, end: int, dtype: torch.dtype | None, crc: int | None = None, name: str = ""
    ) -> None:
        self.file, self.start, self.end, self.dtype, self.crc, self.name = file, start, end, dtype, crc, name
        self._view: weakref.ref[memoryview] | None = None

    def __len__(self) -> int:
        return self.end - self.start

    def view(self) -> memoryview:
        """The bytes; the same object for all that look at the same time. Raises CheckpointError where they are bad."""
        view = self._view() if self._view else None
        if view is None:
            view = self.file.view(self.start, self.end)
            self._view = weakref.ref(view)
        if self.crc is not None:
            self.compare(zlib.crc32(view))
        return view

    def compare(self, crc: int) -> None:
        """Hold the checksum of the bytes to the file's. Raises CheckpointError."""
        if self.crc is not None and crc != self.crc:
            raise CheckpointError(
                f"{self.file.path} is damaged: the bytes of its part {self.name} do not have the checksum that was "
                "saved with them; copy or download it again"
            )
        self.crc = None


@dataclass(frozen=True)
class Stored:
    """One tensor in a file.

    Attributes:
        storage: the bytes it is in.
        shape: of the tensor.
        dtype: as it is stored.
        stride: in elements; None where it is contiguous.
        offset: of its first element in the storage, in elements.
    """

    storage: Storage
    shape: tuple[int, ...]
    dtype: torch.dtype
    stride: tuple[int, ...] | None = None
    offset: int = 0

    def problem(self) -> str | None:
        """Why the tensor cannot be in its storage; None where it can."""
        sizes = (*self.shape, *(self.stride or ()), self.offset)
        if len(self.shape) > MOST_AXES or any(type(size) is not int or not 0 <= size < 1 << 62 for size in sizes):
            return "has a shape that no tensor can have"
        if prod(max(size, 1) for size in self.shape) >= 1 << 62 or len(self.stride or self.shape) != len(self.shape):
            return "has a shape that no tensor can have"
        stride = self.stride if self.stride is not None else _contiguous(self.shape)
        last = self.offset + sum((size - 1) * step for size, step in zip(self.shape, stride, strict=True))
        if 0 not in self.shape and (last + 1) * self.dtype.itemsize > len(self.storage):
            return f"is of shape {list(self.shape)}, which is more than the file holds of it"
        return None

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor by itself."""
        return prod(self.shape) * self.dtype.itemsize

    @property
    def place(self) -> tuple[Path, int] | None:
        """The file and the byte in it where the tensor's elements begin, one after the other in the tensor's own
        dtype; None where they are not like that."""
        if self.dtype in FLOAT8 or (self.stride not in (None, _contiguous(self.shape)) and prod(self.shape) > 1):
            return None
        return self.storage.file.path, self.storage.start + self.offset * self.dtype.itemsize

    def tensor(self) -> Tensor:
        """The values: a view of the file where its dtype and place allow, else a copy."""
        if prod(self.shape) == 0:
            return torch.empty(self.shape, dtype=READ_AS if self.dtype in FLOAT8 else self.dtype)
        data = torch.frombuffer(self.storage.view(), dtype=torch.uint8)
        data = data[: len(data) // self.dtype.itemsize * self.dtype.itemsize]
        if data.data_ptr() % self.dtype.itemsize:
            data = data.clone()
        values = data.view(self.dtype).as_strided(
            self.shape, self.stride if self.stride is not None else _contiguous(self.shape), self.offset
        )
        return values.to(READ_AS) if self.dtype in FLOAT8 else values


class Tensors(Mapping[str, Tensor]):
    """Tensors by name, each read when it is asked for and forgotten when its reader does."""

    def __init__(self, stored: Mapping[str, Stored]) -> None:
        self.stored = stored

    def __getitem__(self, name: str) -> Tensor:
        return self.stored[name].tensor()

    def __iter__(self) -> Iterator[str]:
        return iter(self.stored)

    def __len__(self) -> int:
        return len(self.stored)

    def __contains__(self, name: object) -> bool:
        return name in self.stored


def _contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))
