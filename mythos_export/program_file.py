"""Writing model.pt2 without a second copy of the weights; `mythos_runtime.program` says what stands there instead."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

import torch
from torch.export import ExportedProgram

from mythos_export.destination.storage import Guarded
from mythos_export.weights_file import WeightsFile
from mythos_runtime.program import STORED


def write_program(program: ExportedProgram, weights: WeightsFile, path: Path) -> None:
    """Write a program as a `.pt2` archive; what is in the file of weights, perhaps transposed, is left out.

    Raises:
        OSError: the disk is full, and the like.
    """
    stored = _stored(program, weights)
    with _emptied(program, set(stored)), Guarded(path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of weights that are views of one element
        torch.export.save(program, cast(IO[bytes], file), extra_files={STORED: json.dumps(stored)})


def _stored(program: ExportedProgram, weights: WeightsFile) -> dict[str, dict[str, object]]:
    """Where the program's weights are in the file; those that are not there are left out."""
    names = {place: name for name, place in weights.places.items()}
    found: dict[str, dict[str, object]] = {}
    for name, tensor in program.state_dict.items():
        for turned in (False, True):
            place = weights.place(tensor.detach().T if turned and tensor.ndim == 2 else tensor.detach())
            if place in names and name not in found:
                found[name] = {"tensor": names[place], "transposed": turned}
    return found


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
