"""The files of a bundle whose experts are in shards, and which files it no longer needs."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from mythos_export.lower import COMPUTED, ROW_COMPUTED, check
from mythos_export.package import PROGRAM, Bundle
from mythos_export.passes.externalize_weights import large_initializers, point
from mythos_export.shards.cut import cut
from mythos_export.tensor_file import write_tensors
from mythos_runtime.program import WEIGHTS
from mythos_runtime.row_ports import ENTER, LEAVE, LOOPS_FILE, STEP
from mythos_runtime.shards.entry import ExpertShards
from mythos_runtime.spec import LoopSpec

TRUNK = "trunk.safetensors"
WHOLE = "model.onnx"
_MODEL = (PROGRAM, WHOLE, f"{STEP}.onnx", LOOPS_FILE, WEIGHTS)


def shard(folder: Path, spec: LoopSpec, shards: int) -> tuple[ExpertShards, tuple[Path, ...]]:
    """Cut the step in `folder` at its experts, and write each shard's graph and weights, and the trunk's. The graphs
    before and behind the loop read their weights there then, too; the whole model and its weights stay. Returns what
    the manifest has to say of it, and the files that are new.

    Raises:
        LowerError: as `cut`.
        OSError: the disk is full, and the like.
    """
    step = folder / f"{STEP}.onnx"
    pieces = cut(ir.load(step), spec.graphs[STEP], shards)
    entry = pieces.entry
    for index, model in enumerate(pieces.shards):
        _link([model], folder / f"{entry.name(index)}.safetensors")
    trunk = dict(pieces.trunk) | {name: ir.load(folder / f"{name}.onnx") for name in (ENTER, LEAVE)}
    _link(trunk.values(), folder / TRUNK)
    named = trunk | {entry.name(index): model for index, model in enumerate(pieces.shards)}
    for name, model in named.items():
        path = folder / f"{name}.onnx"
        ir.save(model, path)
        check(path, loops=0)
    weights = [TRUNK, *(f"{entry.name(index)}.safetensors" for index in range(shards))]
    return entry, tuple(folder / name for name in (*entry.files(), *weights) if (folder / name).exists())


def _link(models: Iterable[ir.Model], file: Path) -> None:
    """Have these graphs read from a file of their own what they read from the file of all weights, or hold as arrays;
    what is at the same place is in it once."""
    tensors: dict[str, Tensor] = {}
    wanted: list[tuple[ir.Value, str]] = []
    names: dict[tuple[int | None, int | None] | int, str] = {}
    for model in models:
        for name, value in large_initializers(model).items():
            tensor = value.const_value
            assert tensor is not None
            place: tuple[int | None, int | None] | int = id(tensor)
            if isinstance(tensor, ir.ExternalTensor):
                if Path(tensor.location).name != WEIGHTS:
                    continue  # computed for the row graphs alone, in their own small file
                place = tensor.offset, tensor.length
            if place not in names:
                names[place] = name
                tensors[name] = _lying(tensor.numpy())
            wanted.append((value, names[place]))
    if tensors:
        written = write_tensors(file, tensors)
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
        for value, name in wanted:
            point(value, file, written[name])


def _lying(array: np.ndarray) -> Tensor:
    """An array as a tensor, where it is: in a file that is mapped, to be read only."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.from_numpy(array)


def stripped(bundle: Bundle) -> Bundle:
    """The bundle without the model as one graph and all of its weights in one file."""
    if bundle.manifest.shards is None:
        return bundle
    read = {
        Path(value.const_value.location).name
        for name in bundle.manifest.files
        if name.endswith(".onnx") and name not in _MODEL
        for value in large_initializers(ir.load(bundle.folder / name)).values()
        if isinstance(value.const_value, ir.ExternalTensor)
    }
    unread = {name for name in (COMPUTED, ROW_COMPUTED) if name not in read}
    gone = {name for name in bundle.manifest.files if name in (*_MODEL, *unread)}
    for name in gone:
        (bundle.folder / name).unlink()
    manifest = bundle.manifest
    files = {name: each for name, each in manifest.files.items() if name not in gone}
    targets = tuple(
        replace(each, files=tuple(name for name in each.files if name not in gone)) for each in manifest.targets
    )
    return replace(bundle, manifest=replace(manifest, files=files, targets=targets))
