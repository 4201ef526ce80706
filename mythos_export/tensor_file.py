"""Writing safetensors files: one tensor after the other through Python's own files.

The library's `save_file` makes files that only their owner can read, and its error for a full disk is no OSError.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

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
) -> dict[str, tuple[int, int]]:
    """Write a file, and return where in it each tensor begins and ends, in bytes.

    Raises:
        OSError: the disk is full, and the like.
    """
    # Larger elements first: every tensor lies at a multiple of its element's size.
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    offsets: dict[str, tuple[int, int]] = {}
    end = 0
    for name in names:
        tensor = tensors[name]
        start, end = end, end + tensor.numel() * tensor.element_size()
        offsets[name] = (start, end)
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    base = 8 + len(text)
    with path.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)))
        stream.write(text)
        for name in names:
            stream.write(_bytes(tensors[name]))
    return {name: (base + start, base + stop) for name, (start, stop) in offsets.items()}


def _bytes(tensor: Tensor) -> memoryview:
    """A tensor's elements as they lie in memory; a copy only where they do not lie in a row."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
