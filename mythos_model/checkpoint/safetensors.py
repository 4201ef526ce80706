"""The header of a `.safetensors` file: a length, then a JSON object that says where each tensor is."""

from __future__ import annotations

import json
import struct
from typing import Any

import torch

from mythos_model.checkpoint.files import Mapped
from mythos_model.checkpoint.stored import Storage, Stored
from mythos_model.checkpoint.texts import no_key_twice
from mythos_model.errors import CheckpointError, shown

_LARGEST_HEADER = 100_000_000  # as the format's own library has it
_DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "U16": torch.uint16,
    "I16": torch.int16,
    "U32": torch.uint32,
    "I32": torch.int32,
    "U64": torch.uint64,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
}


def looks_like_safetensors(file: Mapped) -> bool:
    """Told by the header, whatever the file's name: a length that fits, then a JSON object."""
    start = bytes(file.memory[:9])
    return len(start) == 9 and start[8:] == b"{" and struct.unpack("<Q", start[:8])[0] <= len(file) - 8


def read_safetensors(file: Mapped) -> dict[str, Stored]:
    """Every tensor of the file, none of them read.

    Raises:
        CheckpointError: the header is damaged, or does not account for each byte of the file exactly once.
    """
    length = struct.unpack("<Q", file.memory[:8])[0]
    begin = 8 + length
    if length > _LARGEST_HEADER:
        raise CheckpointError(f"{file.path} is no safetensors file: its header would have {length} bytes")
    try:
        header = json.loads(bytes(file.memory[8:begin]), object_pairs_hook=no_key_twice)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{file.path} is not a readable safetensors file: its header is no JSON ({error})"
        ) from error
    header.pop("__metadata__", None)
    tensors = {name: _tensor(file, name, entry, begin) for name, entry in header.items()}
    end = begin
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].storage.start, item[1].storage.end)):
        if tensor.storage.start != end:
            raise CheckpointError(
                f"{file.path} is damaged: by its header, the tensor {shown(name)} is "
                f"{'over another' if tensor.storage.start < end else 'behind bytes that belong to none'}"
            )
        end = tensor.storage.end
    if end != len(file):
        raise CheckpointError(
            f"{file.path} is {'truncated' if end > len(file) else 'damaged'}: by its header it has {end} bytes, not "
            f"{len(file)}; copy or download it again"
        )
    return tensors


def _tensor(file: Mapped, name: str, entry: Any, begin: int) -> Stored:
    try:
        name.encode()  # half of a surrogate pair is no text
        kind, shape, (first, last) = entry["dtype"], entry["shape"], entry["data_offsets"]
        whole = isinstance(shape, list) and all(type(n) is int and 0 <= n < 1 << 62 for n in (*shape, first, last))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{file.path} is damaged: its header does not place the tensor {shown(name)}") from error
    if type(kind) is not str or kind not in _DTYPES:
        raise CheckpointError(
            f"{file.path}: the tensor {shown(name)} is stored as {shown(kind)}, which this program cannot read; it "
            f"reads {', '.join(_DTYPES)}"
        )
    dtype = _DTYPES[kind]
    stored = Stored(Storage(file, begin + first, begin + last, dtype), tuple(shape), dtype) if whole else None
    if stored is None or last < first or stored.problem() or stored.nbytes != last - first:
        raise CheckpointError(
            f"{file.path} is damaged: by its header, the tensor {shown(name)} of {shown(kind)} and shape "
            f"{shown(str(shape)[:200])} does not fill its bytes"
        )
    return stored
