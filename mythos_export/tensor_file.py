"""Writing safetensors files: one tensor after the other through Python's own files.

The library's `save_file` makes files that only their owner can read, its error for a full disk is no OSError, and it
wants all tensors in memory at once.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

Place = tuple[int, int]
"""Where in a file a tensor begins and ends, in bytes."""

_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> dict[str, Place]:
    """Write a file, and return where in it each tensor begins and ends, in bytes.

    Raises:
        OSError: the disk is full, and the like.
    """
    # Larger elements first: every tensor is at a multiple of its element's size.
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    head, places = header({name: (tensors[name].dtype, tuple(tensors[name].shape)) for name in names}, metadata)
    with path.open("wb") as stream:
        stream.write(head)
        for name in names:
            stream.write(raw_bytes(tensors[name]))
    return places


def header(
    tensors: Mapping[str, tuple[torch.dtype, tuple[int, ...]]], metadata: Mapping[str, str] | None = None
) -> tuple[bytes, dict[str, Place]]:
    """What a file of these tensors, one behind the other in this order, begins with; and where each of them is."""
    entries: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    offsets: dict[str, Place] = {}
    end = 0
    for name, (dtype, shape) in tensors.items():
        start, end = end, end + math.prod(shape) * dtype.itemsize
        offsets[name] = (start, end)
        entries[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    base = 8 + len(text)
    return struct.pack("<Q", len(text)) + text, {n: (base + start, base + stop) for n, (start, stop) in offsets.items()}


def raw_bytes(tensor: Tensor) -> memoryview:
    """A tensor's elements as they are in memory; a copy only where they are not in a row."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
