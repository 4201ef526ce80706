"""model.pt2 and rows.pt2, the captured programs, as PyTorch loads them. Like `torch_device`, it needs torch.

A file holds no second copy of the weights: what weights.safetensors, beside it, holds too is left out (NaN stands
there), and the entry `STORED` of the archive says where each is:

    {parameter: {"tensor": its name in weights.safetensors, "transposed": whether it is stored transposed}}
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from mythos_runtime.errors import BundleError

WEIGHTS = "weights.safetensors"
STORED = "stored_weights.json"
_MOST_HEADER_BYTES = 100_000_000  # the library's own limit
_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}


Shared = dict[tuple[str, bool], Any]
"""Weights that programs of a bundle have in common: by their names in the file, and whether they are transposed."""


def load_program(file: Path, device: str = "cpu", shared: Shared | None = None) -> Any:
    """The torch.export.ExportedProgram of a bundle, complete.

    Args:
        device: where the weights from the file beside it are put.
        shared: weights that are there already; those that are not are added.

    Raises:
        BundleError: the file, or the weights beside it, cannot be read.
    """
    torch: Any = importlib.import_module("torch")
    extra = {STORED: ""}
    try:
        program = torch.export.load(str(file), extra_files=extra)
        stored = json.loads(extra[STORED] or "{}")
    except Exception as error:  # whatever it is (it has no base class): the file is what it came from
        raise BundleError(f"{file} cannot be loaded by torch {torch.__version__}: {error}") from error
    if not stored:
        return program
    weights = read_tensors(file.with_name(WEIGHTS))
    shared = {} if shared is None else shared
    for name, entry in stored.items():
        try:
            key, held = (entry["tensor"], bool(entry["transposed"])), program.state_dict[name]
            if key not in shared:
                tensor = weights[key[0]]
                shared[key] = (tensor.T.contiguous() if key[1] else tensor).to(device)
            tensor = shared[key]
        except (KeyError, TypeError) as error:
            raise BundleError(f"{file}: the weight {name} is not in {WEIGHTS}; export the model again") from error
        if (tensor.shape, tensor.dtype) != (held.shape, held.dtype):
            raise BundleError(f"{file}: the weight {name} has another shape or type in {WEIGHTS}; export it again")
        program.state_dict[name] = torch.nn.Parameter(tensor, False) if isinstance(held, torch.nn.Parameter) else tensor
    return program


def read_tensors(path: Path) -> dict[str, Any]:
    """The tensors of a safetensors file, mapped into memory rather than read.

    Raises:
        BundleError: it cannot be read, or is no such file.
    """
    torch: Any = importlib.import_module("torch")
    try:
        with open(path, "rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > _MOST_HEADER_BYTES:
                raise ValueError("its header is too long")
            header = json.loads(stream.read(length))
        data = torch.from_numpy(np.memmap(path, np.uint8, "c", 8 + length))  # "c": torch warns of what it may not write
        tensors = {}
        for name, entry in header.items():
            if name != "__metadata__":
                start, end = entry["data_offsets"]
                dtype = getattr(torch, _DTYPES[entry["dtype"]])
                tensors[name] = data[start:end].view(dtype).reshape(entry["shape"])
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise BundleError(f"{path} cannot be read as a safetensors file: {error}") from error
    return tensors
