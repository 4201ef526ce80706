"""Checkpoint files in, a configuration and a reference-named state dict out; and the way back.

checkpoint = load_checkpoint("step_0000010.pt")
checkpoint.config, checkpoint.state["embed.weight"]
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mythos_model.config import MythosConfig
from mythos_model.errors import CheckpointError, ConfigError
from mythos_model.names import infer_config, reference_shapes
from mythos_model.pickles import PickledConfig, read_pt

INDEX = "model.safetensors.index.json"
ROTARY_TABLES = ("freqs_cis", "freqs_cis_mla")  # complex tables of the reference: recomputed, never loaded
LISTED = 12  # names of one kind that an error lists before it only counts
_FOREIGN_FIELDS = {"architectures", "model_type", "torch_dtype", "dtype", "transformers_version"}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read and checked.

    Attributes:
        config: the model's configuration.
        state: weights under the reference's names, exactly `reference_shapes(config)`.
        source: the file or folder.
        sha256: of the file; of a folder, over the names and hashes of the files read.
        format: "training checkpoint", "state dict", "safetensors" or "sharded safetensors".
    """

    config: MythosConfig
    state: dict[str, Tensor]
    source: Path
    sha256: str
    format: str


@dataclass(frozen=True)
class _Raw:
    state: dict[str, Any]
    config: dict[str, Any]
    files: tuple[Path, ...]
    format: str


def load_checkpoint(
    path: str | Path,
    config: MythosConfig | Mapping[str, Any] | str | Path | None = None,
    variant: str | None = None,
    *,
    default: Mapping[str, Any] | None = None,
) -> Checkpoint:
    """Read a checkpoint of any known form, never running code from it.

    Args:
        path: `.pt` / `.pth` (the training script's, or a state dict), `.safetensors`, or a folder with
            `model.safetensors` or its shards.
        config: a configuration, a mapping with some of its fields, or a JSON file of either. It wins over the file's
            own and over a `config.json` beside it; what is still open is inferred from the tensors.
        variant: a named variant instead of `config`.
        default: fields to start from where the checkpoint brings no configuration of its own.

    Raises:
        CheckpointError: unreadable, or tensors missing, extra, misshapen or not finite (all listed in one error).
        ConfigError: the configuration does not hold together.
    """
    path = Path(path)
    raw = _read(path)
    given = dict(raw.config or default or {})
    if variant is not None:
        given = MythosConfig.variant(variant).to_dict()
    elif isinstance(config, MythosConfig):
        given = config.to_dict()
    elif isinstance(config, Mapping):
        given |= dict(config)
    elif config is not None:
        given |= _read_config(Path(config))
    state = _clean_names(raw.state)
    tables = {name: state.pop(name) for name in ROTARY_TABLES if name in state}
    shapes = {name: tuple(t.shape) for name, t in {**state, **tables}.items() if isinstance(t, Tensor)}
    complete = set(MythosConfig.__dataclass_fields__) <= set(given)
    found = MythosConfig.from_dict(given) if complete else infer_config(shapes, given)
    _untie(state, path)
    _check(state, reference_shapes(found), path)
    return Checkpoint(found, state, path, _hash(raw.files), raw.format)


def save_checkpoint(folder: str | Path, config: MythosConfig, state: Mapping[str, Tensor]) -> Path:
    """Write `model.safetensors` and `config.json`; each appears whole or not at all. Returns the folder."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights, text = folder / "model.safetensors", folder / "config.json"
    partial = weights.with_suffix(".partial")
    # Expert tensors are views of stacked ones: safetensors wants each to own its memory.
    save_file({name: tensor.detach().contiguous().clone() for name, tensor in state.items()}, partial)
    os.replace(partial, weights)
    partial = text.with_suffix(".partial")
    partial.write_text(json.dumps(config.to_dict(), indent=2) + "\n", encoding="utf-8")
    os.replace(partial, text)
    return folder


# -- reading ---------------------------------------------------------------------------------------------------------


def _read(path: Path) -> _Raw:
    if path.is_dir():
        return _read_folder(path)
    if not path.exists():
        raise CheckpointError(f"there is no checkpoint {path}")
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path} is empty; expected a .pt or .safetensors checkpoint")
    beside = path.parent / "config.json"
    if _is_safetensors(path):
        return _Raw(_read_safetensors(path), _read_config(beside) if beside.exists() else {}, (path,), "safetensors")
    if path.suffix == ".safetensors":
        raise CheckpointError(f"{path} is truncated, or no safetensors file: its header does not fit the file's size")
    stored = read_pt(path)
    if not isinstance(stored, dict):
        raise CheckpointError(f"{path} holds a {type(stored).__name__}, expected a state dict or a training checkpoint")
    own = stored.get("cfg", stored.get("config"))
    config = dict(vars(own)) if isinstance(own, PickledConfig) else dict(own) if isinstance(own, dict) else {}
    if not config and beside.exists():
        config = _read_config(beside)
    for key in ("model", "state_dict", "model_state_dict"):
        if isinstance(stored.get(key), dict):
            return _Raw(dict(stored[key]), config, (path,), "training checkpoint")
    return _Raw(dict(stored), config, (path,), "state dict")


def _read_folder(folder: Path) -> _Raw:
    config = _read_config(folder / "config.json") if (folder / "config.json").exists() else {}
    single, index = folder / "model.safetensors", folder / INDEX
    if index.exists():
        return _Raw(*_read_shards(folder, index, config), "sharded safetensors")
    if single.exists():
        return _Raw(_read_safetensors(single), config, (single,), "safetensors")
    raise CheckpointError(f"{folder} holds neither model.safetensors nor {INDEX}")


def _read_shards(
    folder: Path, index: Path, config: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any], tuple[Path, ...]]:
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
            raise CheckpointError(f"{file} lacks tensors that {INDEX} places there: {_some(absent)}")
        state |= tensors
    return state, config, files


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


def _read_config(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read the model configuration {path}: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} should hold a JSON object with the model's fields, not a {type(values).__name__}")
    return {name: value for name, value in values.items() if name not in _FOREIGN_FIELDS and not name.startswith("_")}


# -- checking --------------------------------------------------------------------------------------------------------


def _clean_names(state: Mapping[str, Any]) -> dict[str, Any]:
    """Names without the prefixes that DistributedDataParallel and torch.compile put before them."""
    return {re.sub(r"^(?:module\.|_orig_mod\.)+", "", str(name)): value for name, value in state.items()}


def _untie(state: dict[str, Any], path: Path) -> None:
    head = state.pop("head.weight", None)
    embed = state.get("embed.weight")
    if isinstance(head, Tensor) and isinstance(embed, Tensor) and not torch.equal(head, embed):
        raise CheckpointError(f"{path}: head.weight differs from embed.weight, but this architecture ties them")


def _check(state: Mapping[str, Any], expected: Mapping[str, tuple[int, ...]], path: Path) -> None:
    """One error with everything that is wrong with the tensors."""
    problems = []
    missing, extra = sorted(set(expected) - set(state)), sorted(set(state) - set(expected))
    if missing:
        problems.append(f"{len(missing)} missing: {_some(missing)}")
    if extra:
        problems.append(f"{len(extra)} not expected: {_some(extra)}")
    shared = [name for name in expected if name in state]
    kinds = [n for n in shared if not isinstance(state[n], Tensor) or not state[n].is_floating_point()]
    if kinds:
        problems.append(f"{len(kinds)} not floating-point tensors: {_some(kinds)}")
    tensors = {name: state[name] for name in shared if name not in kinds}
    misshapen = [
        f"{name} is {list(tensor.shape)}, expected {list(expected[name])}"
        for name, tensor in tensors.items()
        if tuple(tensor.shape) != expected[name]
    ]
    if misshapen:
        problems.append(f"{len(misshapen)} misshapen: {_some(misshapen)}")
    broken = [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        problems.append(f"{len(broken)} with NaN or infinite values: {_some(broken)}")
    if problems:
        raise CheckpointError(f"{path} does not fit its configuration; tensors " + "; ".join(problems))


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    rest = len(listed) - LISTED
    return ", ".join(listed[:LISTED]) + (f" and {rest} more" if rest > 0 else "")


def _hash(files: tuple[Path, ...]) -> str:
    digests = []
    for file in files:
        with file.open("rb") as stream:
            digests.append(hashlib.file_digest(stream, "sha256").hexdigest())
    if len(digests) == 1:
        return digests[0]
    lines = "".join(f"{file.name} {digest}\n" for file, digest in zip(files, digests, strict=True))
    return hashlib.sha256(lines.encode()).hexdigest()
