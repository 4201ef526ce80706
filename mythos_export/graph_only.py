"""A model's graphs without its weights: every reference points into the checkpoint's own files, which may be absent.

    export_graphs(None, "1t-graph", variant="1t")            # shards that are still to be written, as links.json says
    export_graphs("checkpoint", "10b-graph")                 # a checkpoint's files, of which only the headers are read

The model is traced on memory that is reserved and not used: its tensors are in a sparse file that nobody writes, so the
size of the model does not matter. Nothing is executed, and what is written is no bundle: it is checked for its form
(onnx.checker with shape inference, each reference within its file), and says so.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch

from mythos_export.capture import Captured, capture, capture_rows
from mythos_export.destination import staged
from mythos_export.errors import LowerError, PackageError
from mythos_export.lower import lowered, nothing_of, problem_of
from mythos_export.passes.externalize_weights import array_of, large_initializers, point
from mythos_export.passes.split_graphs import split_graphs
from mythos_export.precision import PRECISIONS
from mythos_export.progress import Progress, silent
from mythos_export.references import Compositions, Place, places_of, refer
from mythos_export.tensor_file import header, write_tensors
from mythos_export.weights_file import reserved
from mythos_model import families, load_checkpoint
from mythos_model.checkpoint.texts import read_json_object
from mythos_model.families.family import Family
from mythos_runtime.spec import MODEL

LINKS, COMPUTED = "links.json", "computed.safetensors"
STATE = "graph only: not executed, not verified"
SHARD = 50 << 30  # bytes of a planned shard at most


@dataclass(frozen=True)
class GraphOnly:
    """What was written: the graphs' names, and how many tensors and bytes they refer to, in how many files."""

    path: Path
    graphs: tuple[str, ...]
    tensors: int
    bytes: int
    files: int
    absent: int

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "path": str(self.path), "state": STATE}


def export_graphs(
    checkpoint: str | Path | None,
    output: str | Path,
    *,
    config: Mapping[str, Any] | str | Path | None = None,
    variant: str | None = None,
    weights_key: str | None = None,
    exit_rule: str | None = None,
    precision: str = "fp32",
    progress: Progress = silent,
) -> GraphOnly:
    """Write the graphs of a model into a folder, with references into a checkpoint's files.

    Args:
        checkpoint: as `load_checkpoint` reads it, of which the headers are looked at alone; None: files are planned,
            safetensors shards beside the graphs, and links.json says what is to be where in them.
        config, variant, weights_key, exit_rule: as `load_checkpoint`; one of the first two where there is no
            checkpoint.
        precision: fp32 or fp16, what is computed in. A tensor of another type is cast in the graph.

    Raises:
        LowerError: a weight of this family is not in its files as the model has it; or a reference is wrong.
        Others of ExportError and ModelError.
    """
    if precision not in ("fp32", "fp16"):
        raise PackageError(
            f"--graph-only writes fp32 or fp16 graphs, not {precision}: rounded weights are in no checkpoint"
        )
    dtype = PRECISIONS[precision].dtype
    with staged(Path(output), False, Path(checkpoint or "absent")) as folder:
        progress("look at the checkpoint")
        final = Path(output).resolve()
        family, found, places = _found(checkpoint, config, variant, weights_key, exit_rule, final, dtype)
        compositions = Compositions(family, found, places)
        structure = family.model.structure(found, dtype)
        for name, tensor in structure.state_dict().items():  # before minutes are spent
            if tensor.numel():
                compositions[name]
        with tempfile.TemporaryDirectory(prefix=".reserved-", dir=folder) as room:
            progress("capture the program")
            model = reserved(structure, Path(room) / "weights")
            programs = [program for program in (capture(model), capture_rows(model)) if program is not None]
            progress("lower to ONNX")
            weights = frozenset(structure.state_dict())
            models = {name: graph for program in programs for name, graph in _graphs(program, weights).items()}
            progress("refer to the weights")
            referred: dict[str, Place] = {}
            for graph in models.values():
                referred |= refer(graph, compositions, final)
            _put_apart(models, folder / COMPUTED)
            progress("check the graphs")
            for name, graph in models.items():
                ir.save(graph, folder / f"{name}.onnx")
                _check(folder / f"{name}.onnx", final, referred, loops=int(name == MODEL))
        unused = sorted(set(places) - set(referred))
        if unused:
            raise LowerError(f"no graph refers to {len(unused)} tensors of the checkpoint, {unused[0]} among them")
        files = {place.file for place in places.values()}
        told = GraphOnly(
            Path(output),
            tuple(models),
            len(places),
            sum(place.bytes for place in places.values()),
            len(files),
            sum(not file.exists() for file in files),
        )
        _write_links(folder / LINKS, final, family, found, places, told)
    return told


def _found(
    checkpoint: str | Path | None,
    config: Mapping[str, Any] | str | Path | None,
    variant: str | None,
    weights_key: str | None,
    exit_rule: str | None,
    folder: Path,
    dtype: torch.dtype,
) -> tuple[Family, Any, dict[str, Place]]:
    """The model, and where each of its checkpoint's tensors is or is to be."""
    if checkpoint is not None:
        loaded = load_checkpoint(
            checkpoint, config, variant, weights_key=weights_key, exit_rule=exit_rule, content=False
        )
        places = places_of(loaded.state)
        for name in loaded.state:
            if name not in places:
                raise LowerError(f"{name} is not whole and in order in its file; export it without --graph-only")
        return loaded.family, loaded.config, places
    if weights_key is not None or exit_rule is not None:
        raise PackageError("--weights-key and --exit say what to take of a checkpoint, and there is none")
    if variant is not None:
        family, found = families.variant(variant)
    elif config is not None:
        given = config if isinstance(config, Mapping) else read_json_object(Path(config))
        family = families.find(given, {})
        found = family.read_config(given, {})
    else:
        raise PackageError("--graph-only without a checkpoint needs --variant or --config, to know the model by")
    return family, found, _planned(family.shapes(found), dtype, folder)


def _planned(shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype, folder: Path) -> dict[str, Place]:
    """Shards as an exporter of checkpoints would write them."""
    shards: list[dict[str, tuple[torch.dtype, tuple[int, ...]]]] = [{}]
    held = 0
    for name, shape in shapes.items():
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if shards[-1] and held + size > SHARD:
            shards.append({})
            held = 0
        shards[-1][name] = (dtype, shape)
        held += size
    places = {}
    for number, shard in enumerate(shards, 1):
        file = folder / f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        for name, (start, _) in header(shard)[1].items():
            places[name] = Place(file, start, *shard[name])
    return places


def _graphs(program: Captured, weights: frozenset[str]) -> dict[str, ir.Model]:
    """The program's graphs, nothing in them computed from a weight. Raises LowerError."""
    model = lowered(program, nothing_of(weights))
    for name, value in model.graph.initializers.items():
        if name in weights or value.const_value is None:
            continue
        array = np.asarray(array_of(value.const_value))
        if array.dtype.kind == "f" and np.isnan(array).any():  # as every weight of `reserved` is, somewhere
            raise LowerError(f"{name} was computed from weights that are not there; file this as a defect")
    return {MODEL: model} if program.graphs == (MODEL,) else split_graphs(model, program.graphs)


def _put_apart(models: Mapping[str, ir.Model], path: Path) -> None:
    """Large constants that are no weights, tables of rotary angles, go into a file of their own, each once."""
    tensors: dict[str, torch.Tensor] = {}
    later: list[tuple[ir.Value, str]] = []
    for name, model in models.items():
        for own, value in large_initializers(model).items():
            if isinstance(value.const_value, ir.ExternalTensor):
                continue
            tensor = torch.from_numpy(np.asarray(array_of(value.const_value)).copy())
            known = own if own not in tensors or torch.equal(tensors[own], tensor) else f"{name}/{own}"
            tensors[known] = tensor
            later.append((value, known))
    places = write_tensors(path, tensors) if tensors else {}
    for value, known in later:
        point(value, path, places[known])


def _check(path: Path, folder: Path, referred: Mapping[str, Place], loops: int) -> None:
    """The checker's full check, and that every reference has its tensor's size and ends within its file.

    The checker wants to see the files; so what is referred to is an input to it.
    """
    model = onnx.load(path, load_external_data=False)
    sizes = {os.path.relpath(place.file, folder): place.file for place in referred.values()}
    sizes[COMPUTED] = path.parent / COMPUTED
    for tensor in list(model.graph.initializer):
        if not tensor.external_data:
            continue
        said = {entry.key: entry.value for entry in tensor.external_data}
        start, length = int(said["offset"]), int(said["length"])
        width = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        if length != width * int(np.prod(tensor.dims, dtype=np.int64)):
            raise LowerError(f"{path.name}: {tensor.name} of shape {list(tensor.dims)} refers to {length} bytes")
        file = sizes[said["location"]]
        if file.exists() and start + length > file.stat().st_size:
            raise LowerError(f"{path.name}: {tensor.name} refers to bytes behind the end of {file}")
        model.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        model.graph.initializer.remove(tensor)
    problem = problem_of(model, loops)
    if problem is not None:
        raise LowerError(f"{path.name}: {problem}")


def _write_links(
    path: Path, folder: Path, family: Family, config: Any, places: Mapping[str, Place], told: GraphOnly
) -> None:
    """What is to be found where, for whoever brings graph and weights together."""
    tensors = {
        name: {
            "file": os.path.relpath(place.file, folder),
            "offset": place.start,
            "bytes": place.bytes,
            "dtype": str(place.dtype).removeprefix("torch."),
            "shape": list(place.shape),
        }
        for name, place in places.items()
    }
    document = {**told.to_json(), "family": family.name, "config": config.to_dict(), "weights": tensors}
    del document["path"]
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
