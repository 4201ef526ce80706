"""What a checkpoint's files hold, before anybody knows which model it is.

raw = read_checkpoint("step_0000010.pt")
raw.shapes["embed.weight"], raw.tensors["embed.weight"], raw.config, raw.notes
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from mythos_model.checkpoint.examine import examine_files
from mythos_model.checkpoint.files import check_regular, reach
from mythos_model.checkpoint.float8 import float8_notes
from mythos_model.checkpoint.folder import Chosen, choose_files, index_beside, read_index
from mythos_model.checkpoint.hub import fetch, is_reference
from mythos_model.checkpoint.names import prefixes
from mythos_model.checkpoint.sets import COUNTERS, choose_names
from mythos_model.checkpoint.stored import FLOAT8, READ_AS, Stored, Tensors
from mythos_model.checkpoint.texts import read_json_object
from mythos_model.checkpoint.weights import Weights, open_weights
from mythos_model.errors import CheckpointError, shown, some

_MOST_REPEATED = 8  # how often a file's bytes may stand for values of its tensors


@dataclass(frozen=True)
class Examined:
    """What one pass over a checkpoint's bytes told.

    Attributes:
        digests: the SHA-256 of each file.
        problems: a phrase for each kind of tensor that no model can use; empty where all is well.
    """

    digests: Mapping[Path, str]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class RawCheckpoint:
    """A checkpoint as its files hold it.

    Attributes:
        source: the file or folder that was asked for (of the hub: where it is now).
        tensors: under the names of the file without the wrappers of training. Read when asked for: a view of the file's
            bytes, in the dtype of the file (8 bit floats become bfloat16, which holds each of their values).
        config: the checkpoint's own configuration, else that of a config.json beside it, foreign keys included; None
            where there is none.
        files: those that were read.
        format: "training checkpoint", "state dict" or "safetensors", "sharded " before it where there is an index.
        notes: what was chosen among several or left out, one sentence each, for the user.
        folder: where files that go with the weights are (tokenizer.json, generation_config.json); `beside` gives them.
    """

    source: Path
    tensors: Tensors
    config: dict[str, Any] | None
    files: tuple[Path, ...]
    format: str
    notes: tuple[str, ...]
    folder: Path

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Of every tensor, known without reading one."""
        return {name: stored.shape for name, stored in self.tensors.stored.items()}

    @cached_property
    def dtypes(self) -> Mapping[str, torch.dtype]:
        """Of every tensor as `tensors` gives it."""
        return {name: READ_AS if s.dtype in FLOAT8 else s.dtype for name, s in self.tensors.stored.items()}

    def place(self, name: str) -> tuple[Path, int] | None:
        """The file and the byte in it where a tensor's elements are one after the other, little-endian, in its dtype;
        None where they are not like that."""
        return self.tensors.stored[name].place

    def beside(self, name: str) -> Path | None:
        """A file of the checkpoint's folder, None where there is none. Raises CheckpointError where it is no regular
        file or a link that leads elsewhere."""
        return reach(self.folder, name)

    @property
    def prefixes(self) -> tuple[str, ...]:
        """What may be taken off all names at their front, shortest first: "", "model." ..."""
        return prefixes(self.shapes)

    def without_prefix(self, prefix: str) -> RawCheckpoint:
        """The same with shorter names; one of `prefixes`. Names that do not begin with it stay."""
        stored = {name.removeprefix(prefix): tensor for name, tensor in self.tensors.stored.items()}
        return replace(self, tensors=Tensors(stored)) if len(stored) == len(self.tensors) else self

    def examine(self, names: Collection[str]) -> Examined:
        """Read every file once: its hash, and whether the tensors `names` (those of the model; names that are not
        there are passed over) are finite floating-point numbers.

        Raises:
            CheckpointError: the bytes do not have the checksum that was saved with them.
        """
        there = [name for name in names if name in self.shapes]
        floats = [name for name in there if self.dtypes[name].is_floating_point]
        digests, broken = examine_files(self.files, {name: self.tensors.stored[name] for name in floats})
        problems = []
        if len(floats) < len(there):
            others = [name for name in there if not self.dtypes[name].is_floating_point]
            problems.append(f"{len(others)} not floating-point tensors: {some(others)}")
        if broken:
            problems.append(f"{len(broken)} with NaN or infinite values: {some(broken)}")
        return Examined(digests, tuple(problems))


def read_checkpoint(path: str | Path, weights_key: str | None = None) -> RawCheckpoint:
    """Read a checkpoint of any known form, never running code from it and reading no weight yet.

    Args:
        path: a `.pt` / `.pth` / `.bin` (a training script's, or a state dict) or `.safetensors` file; an index of
            shards; a folder with one of them, as hubs and training scripts write it; or a model on the hub, as
            `owner/name` or `hf://owner/name@revision` (it is downloaded).
        weights_key: which of several sets of weights in the file is meant, such as "ema"; "." those under no key.

    Raises:
        CheckpointError: there is none, it is damaged or of another kind, or two readings are possible.
        ConfigError: its configuration is not readable.
    """
    where = fetch(str(path)) if is_reference(str(path)) else Path(path)
    chosen = _choose(where)
    notes = list(chosen.notes)
    files = [open_weights(file, weights_key, notes) for file in chosen.files]
    if chosen.places is None:
        (only,) = files
        tensors, form = only.tensors, only.form
    else:
        tensors, form = _placed(chosen, files, notes), f"sharded {files[0].form}"
    names, sets = choose_names({name: t.shape for name, t in tensors.items()}, files[0].wanted, where)
    if sets:
        notes.append(f"{where} holds several sets of weights ({some(sets)}): those under {weights_key!r} are taken")
    tensors = {name: tensors[stored] for name, stored in names.items()}
    if counters := [name for name in tensors if name.rpartition(".")[2] in COUNTERS]:
        notes.append(f"left out, since training alone needs them: {some(counters)}")
    tensors = {name: tensor for name, tensor in tensors.items() if name not in counters}
    _check_sizes(where, tensors, sum(file.bytes for file in files))
    notes += float8_notes(where, tensors)
    config = _config(chosen.folder, files[0], notes)
    return RawCheckpoint(where, Tensors(tensors), config, chosen.files, form, tuple(notes), chosen.folder)


def _choose(path: Path) -> Chosen:
    if os.path.isdir(path):
        return choose_files(path)
    if not os.path.lexists(path):
        raise CheckpointError(
            f"there is no checkpoint {shown(str(path))}; expected a .pt or .safetensors file, a folder that holds "
            "config.json and weights, or hf://owner/name"
        )
    check_regular(path)
    if path.name.endswith(".index.json"):
        return read_index(path)
    index = index_beside(path)
    if index is not None:
        raise CheckpointError(f"{path} is one of several shards; give {index.parent} or {index} instead")
    return Chosen(path.parent, (path,))


def _placed(chosen: Chosen, files: list[Weights], notes: list[str]) -> dict[str, Stored]:
    """Every tensor from the shard that the index names for it, and from no other."""
    assert chosen.places is not None
    if len({file.form for file in files}) > 1:
        raise CheckpointError(f"{chosen.folder}: some shards are safetensors, others are not")
    by_path = dict(zip(chosen.files, files, strict=True))
    absent = [name for name, path in chosen.places.items() if name not in by_path[path].tensors]
    if absent:
        shard = chosen.places[absent[0]]
        raise CheckpointError(f"{shard} lacks tensors that the index places there: {some(absent)}")
    stale = {name for path, file in by_path.items() for name in file.tensors if chosen.places.get(name) != path}
    if stale:
        notes.append(f"left out, since the index does not name them where they are: {some(sorted(stale))}")
    return {name: by_path[path].tensors[name] for name, path in chosen.places.items()}


def _check_sizes(path: Path, tensors: Mapping[str, Stored], file_bytes: int) -> None:
    """A view may repeat a few bytes as often as it likes; nobody could hold what it stands for."""
    needed = sum(tensor.nbytes for tensor in tensors.values())
    if needed > _MOST_REPEATED * file_bytes + (1 << 16):
        raise CheckpointError(
            f"{path} has {file_bytes} bytes, and its tensors would take {needed}: they repeat its bytes"
        )


def _config(folder: Path, file: Weights, notes: list[str]) -> dict[str, Any] | None:
    beside = reach(folder, "config.json")
    if file.config is None:
        config = None if beside is None else read_json_object(beside)
    else:
        config = file.config
        if beside is not None:
            notes.append(f"the configuration is the one in {file.path.name}, not {beside}")
    if config and config.get("quantization_config"):
        method = config["quantization_config"]
        method = method.get("quant_method") if isinstance(method, dict) else None
        raise CheckpointError(
            f"{folder}: its configuration says that the weights are quantised ({shown(str(method))}); give the "
            "checkpoint in float32, bfloat16 or float16 that it was made from"
        )
    return config
