"""Writing model.pt2 without a second copy of the weights; `mythos_runtime.program` says what stands there instead."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

import torch
from torch import Tensor
from torch.export import ExportedProgram

from mythos_export.destination.storage import Guarded
from mythos_runtime.program import STORED, read_tensors


def write_program(program: ExportedProgram, weights: Path, path: Path) -> None:
    """Write a program as a `.pt2` archive; what `weights` holds bit for bit, perhaps transposed, is left out.

    Raises:
        OSError: the disk is full, and the like.
    """
    stored = _stored(program, weights)
    with _emptied(program, set(stored)), Guarded(path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of weights that are views of one element
        torch.export.save(program, cast(IO[bytes], file), extra_files={STORED: json.dumps(stored)})


def _stored(program: ExportedProgram, weights: Path) -> dict[str, dict[str, object]]:
    """Where the program's weights are in the file; those that are not there are left out."""
    alike: dict[tuple[torch.dtype, int], list[tuple[str, Tensor]]] = defaultdict(list)
    for name, tensor in read_tensors(weights).items():
        alike[tensor.dtype, tensor.numel()].append((name, tensor))
    found: dict[str, dict[str, object]] = {}
    for name, wanted in program.state_dict.items():
        for other, tensor in alike[wanted.dtype, wanted.numel()]:
            if _same(tensor, wanted):
                found[name] = {"tensor": other, "transposed": False}
            elif tensor.ndim == 2 and _same(tensor.T, wanted):
                found[name] = {"tensor": other, "transposed": True}
            if name in found:
                break
    return found


def _same(first: Tensor, second: Tensor) -> bool:
    """Bit for bit; a look at the first row settles most."""
    if first.shape != second.shape:
        return False
    if first.ndim > 1 and not torch.equal(_bits(first[0]), _bits(second[0])):
        return False
    return torch.equal(_bits(first), _bits(second))


def _bits(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


@contextlib.contextmanager
def _emptied(program: ExportedProgram, names: set[str]) -> Iterator[None]:
    """The program with views of a single NaN, or 0, in place of some weights."""
    whole = dict(program.state_dict)
    for name in names:
        tensor = whole[name]
        empty = torch.full((), float("nan") if tensor.is_floating_point() else 0, dtype=tensor.dtype)
        empty = empty.expand(tensor.shape)
        program.state_dict[name] = torch.nn.Parameter(empty, False) if isinstance(tensor, torch.nn.Parameter) else empty
    try:
        yield
    finally:
        program.state_dict.update(whole)
