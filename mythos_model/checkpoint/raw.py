"""What a checkpoint's files hold, before anybody knows which model it is.

raw = read_checkpoint("step_0000010.pt")
raw.shapes["embed.weight"], raw.tensors["embed.weight"], raw.config, raw.notes
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor

from mythos_model.checkpoint.pickles import PickledConfig, read_pt
from mythos_model.errors import CheckpointError, ConfigError

INDEX = "model.safetensors.index.json"
LISTED = 12  # names of one kind that an error lists before it only counts


@dataclass(frozen=True)
class Examined:
    """What one pass over a checkpoint's bytes told.

    Attributes:
        sha256: of the file; of several, over their names and hashes.
        problems: a phrase for each kind of tensor that no model can use; empty where all is well.
    """

    sha256: str
    problems: tuple[str, ...]


@dataclass(frozen=True)
class RawCheckpoint:
    """A checkpoint as its files hold it.

    Attributes:
        source: the file or folder that was asked for.
        tensors: under the names of the file, without wrappers (`module.`, `_orig_mod.`). Read when asked for.
        shapes, dtypes: of each tensor, known without reading one.
        config: the checkpoint's own configuration, else that of a config.json beside it, foreign keys included; None
            where there is none.
        files: those that were read.
        format: "training checkpoint", "state dict", "safetensors" or "sharded safetensors".
        notes: what was chosen among several, one sentence each, for the user.
        folder: where files that go with the weights lie (tokenizer.json, generation_config.json).
    """

    source: Path
    tensors: Mapping[str, Tensor]
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, torch.dtype]
    config: dict[str, Any] | None
    files: tuple[Path, ...]
    format: str
    notes: tuple[str, ...]
    folder: Path

    def examine(self, names: Collection[str]) -> Examined:
        """Read every file once: its hash, and whether the tensors `names` (those of the model; names that are not
        there are passed over) are finite floating-point numbers."""
        shared = [name for name in names if name in self.shapes]
        problems = []
        kinds = [name for name in shared if not self.dtypes[name].is_floating_point]
        if kinds:
            problems.append(f"{len(kinds)} not floating-point tensors: {some(kinds)}")
        floats = [name for name in shared if self.dtypes[name].is_floating_point]
        broken = [name for name in floats if not bool(torch.isfinite(self.tensors[name]).all())]
        if broken:
            problems.append(f"{len(broken)} with NaN or infinite values: {some(broken)}")
        return Examined(_hash(self.files), tuple(problems))


def read_checkpoint(path: str | Path, weights_key: str | None = None) -> RawCheckpoint:
    """Read a checkpoint of any known form, never running code from it.

    Args:
        path: `.pt` / `.pth` (a training script's, or a state dict), `.safetensors`, or a folder with
            `model.safetensors` or its shards.
        weights_key: which of several sets of weights in the file is meant, such as "ema".

    Raises:
        CheckpointError: unreadable.
        ConfigError: a config.json is.
    """
    path = Path(path)
    state, config, files, form = _read_folder(path) if path.is_dir() else _read_file(path)
    tensors = {_clean(str(name)): value for name, value in state.items() if isinstance(value, Tensor)}
    return RawCheckpoint(
        path,
        tensors,
        {name: tuple(tensor.shape) for name, tensor in tensors.items()},
        {name: tensor.dtype for name, tensor in tensors.items()},
        config,
        files,
        form,
        (),
        path if path.is_dir() else path.parent,
    )


def some(names: Iterable[str]) -> str:
    """The first names of a list, and how many more there are."""
    listed = list(names)
    rest = len(listed) - LISTED
    return ", ".join(listed[:LISTED]) + (f" and {rest} more" if rest > 0 else "")


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises ConfigError."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read the model configuration {path}: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} should hold a JSON object with the model's fields, not a {type(values).__name__}")
    return values


_Read = tuple[dict[str, Any], dict[str, Any] | None, tuple[Path, ...], str]


def _read_file(path: Path) -> _Read:
    if not path.exists():
        raise CheckpointError(f"there is no checkpoint {path}")
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path} is empty; expected a .pt or .safetensors checkpoint")
    beside = path.parent / "config.json"
    if _is_safetensors(path):
        config = read_json_object(beside) if beside.exists() else None
        return _read_safetensors(path), config, (path,), "safetensors"
    if path.suffix == ".safetensors":
        raise CheckpointError(f"{path} is truncated, or no safetensors file: its header does not fit the file's size")
    stored = read_pt(path)
    if not isinstance(stored, dict):
        raise CheckpointError(f"{path} holds a {type(stored).__name__}, expected a state dict or a training checkpoint")
    own = stored.get("cfg", stored.get("config"))
    config = dict(vars(own)) if isinstance(own, PickledConfig) else dict(own) if isinstance(own, dict) else None
    if not config and beside.exists():
        config = read_json_object(beside)
    for key in ("model", "state_dict", "model_state_dict"):
        if isinstance(stored.get(key), dict):
            return dict(stored[key]), config, (path,), "training checkpoint"
    return dict(stored), config, (path,), "state dict"


def _read_folder(folder: Path) -> _Read:
    config = read_json_object(folder / "config.json") if (folder / "config.json").exists() else None
    single, index = folder / "model.safetensors", folder / INDEX
    if index.exists():
        state, files = _read_shards(folder, index)
        return state, config, files, "sharded safetensors"
    if single.exists():
        return _read_safetensors(single), config, (single,), "safetensors"
    raise CheckpointError(f"{folder} holds neither model.safetensors nor {INDEX}")


def _read_shards(folder: Path, index: Path) -> tuple[dict[str, Any], tuple[Path, ...]]:
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted(set(weight_map.values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} is no index of shards: it needs an object weight_map ({error})") from error
    root = folder.resolve()
    for name in names:
        if not (root / name).resolve().is_relative_to(root):
            raise CheckpointError(f"{index} names the shard {name!r}, which lies outside the folder; refused")
    files = tuple(folder / name for name in names)
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise CheckpointError(f"{folder} lacks shards that {INDEX} names: {', '.join(missing)}")
    state: dict[str, Any] = {}
    for file in files:
        tensors = _read_safetensors(file)
        absent = [name for name, shard in weight_map.items() if shard == file.name and name not in tensors]
        if absent:
            raise CheckpointError(f"{file} lacks tensors that {INDEX} places there: {some(absent)}")
        state |= tensors
    return state, files


def _is_safetensors(path: Path) -> bool:
    """Told by the header, whatever the file's name: a length that fits, then a JSON object."""
    with path.open("rb") as file:
        start = file.read(9)
    return len(start) == 9 and struct.unpack("<Q", start[:8])[0] < path.stat().st_size and start[8:] == b"{"


def _read_safetensors(path: Path) -> dict[str, Any]:
    try:
        return dict(load_file(path))
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not a readable safetensors file: {error}") from error


def _clean(name: str) -> str:
    """A name without the prefixes that DistributedDataParallel and torch.compile put before it."""
    return re.sub(r"^(?:module\.|_orig_mod\.)+", "", name)


def _hash(files: tuple[Path, ...]) -> str:
    digests = []
    for file in files:
        with file.open("rb") as stream:
            digests.append(hashlib.file_digest(stream, "sha256").hexdigest())
    if len(digests) == 1:
        return digests[0]
    lines = "".join(f"{file.name} {digest}\n" for file, digest in zip(files, digests, strict=True))
    return hashlib.sha256(lines.encode()).hexdigest()
