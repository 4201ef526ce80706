"""Which files of a folder are the checkpoint."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from mythos_model.checkpoint.files import reach
from mythos_model.checkpoint.texts import LARGEST_INDEX, read_json
from mythos_model.errors import CheckpointError, shown, some

_INDEX = ".index.json"
_SAFETENSORS = "model.safetensors"
_BIN = "pytorch_model.bin"
_OTHERS = ("model.pt", "model.pth", "consolidated.safetensors")
_NO_WEIGHTS = ("training_args", "optimizer", "optim", "scheduler", "scaler", "rng_state", "random_states", "sampler")


@dataclass(frozen=True)
class Chosen:
    """Files to read.

    Attributes:
        folder: where they are, and what goes with them.
        files: the checkpoint's, in the order of their names.
        places: where an index says which tensor is, by tensor; None without an index.
        notes: what was taken among several, for the user.
    """

    folder: Path
    files: tuple[Path, ...]
    places: dict[str, Path] | None = None
    notes: tuple[str, ...] = ()


def choose_files(folder: Path) -> Chosen:
    """The weights in a folder as hubs and training scripts write it.

    Raises:
        CheckpointError: there are none, there are several with equal rights, or they are of a form that has to be
            converted first; the message has the command.
    """
    cached = _newest_snapshot(folder)
    if cached is not None:
        folder = cached
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise CheckpointError(f"the folder {folder} cannot be read: {error.strerror}") from error
    _refuse_other_forms(folder, names)
    found = [_pair(folder, name) for name in (_SAFETENSORS, _BIN) if name in names or name + _INDEX in names]
    notes: tuple[str, ...] = ()
    if len(found) == 2:
        notes = (f"{folder} holds {found[0]} and {found[1]}: {found[0]} is read",)
        found = found[:1]
    found += [name for name in names if name in _OTHERS or (name.startswith("consolidated.") and name.endswith(".pth"))]
    if not found:
        found = [
            n for n in names if n.endswith((".safetensors", ".pt", ".pth", ".bin")) and not n.startswith(_NO_WEIGHTS)
        ]
    if len(found) > 1 and all(name.startswith("consolidated.") and name.endswith(".pth") for name in found):
        raise CheckpointError(
            f"{folder} holds a model that was cut into {len(found)} parts for as many GPUs ({some(found)}); merge them "
            "first, with the script that came with the model"
        )
    if len(found) > 1:
        raise CheckpointError(f"{folder} holds several checkpoints: {some(found)}; name the one that is meant")
    if not found:
        raise CheckpointError(_nothing(folder, names))
    if found[0].endswith(_INDEX):
        chosen = read_index(folder / found[0])
        return Chosen(folder, chosen.files, chosen.places, notes)
    return Chosen(folder, (_file(folder, found[0]),), None, notes)


def read_index(index: Path) -> Chosen:
    """The shards that an index names, each inside the index's folder, and which tensor is where.

    Raises:
        CheckpointError: it is no index, a shard is missing, or one is elsewhere.
    """
    folder = index.parent
    value = read_json(index, LARGEST_INDEX, CheckpointError)
    places = value.get("weight_map") if isinstance(value, dict) else None
    if not isinstance(places, dict) or not places or not all(isinstance(shard, str) for shard in places.values()):
        raise CheckpointError(f"{index} is no index of shards: it needs an object weight_map with the names of files")
    shards = sorted(set(places.values()))
    files = {shard: reach(folder, shard) for shard in shards}
    missing = [shard for shard, file in files.items() if file is None]
    if missing:
        raise CheckpointError(f"{folder} lacks shards that {index.name} names: {some(missing)}")
    reached = {shard: file for shard, file in files.items() if file is not None}
    return Chosen(folder, tuple(reached.values()), {name: reached[shard] for name, shard in places.items()})


def index_beside(file: Path) -> Path | None:
    """The index that names a file as one of several shards, None where there is none."""
    for name in (_SAFETENSORS + _INDEX, _BIN + _INDEX):
        index = reach(file.parent, name)
        if index is not None and len(chosen := read_index(index).files) > 1 and file in chosen:
            return index
    return None


def _pair(folder: Path, name: str) -> str:
    """One file, or an index with its shards. Both, where the index does not mean the file, are two checkpoints."""
    if reach(folder, name + _INDEX) is None:
        return name
    if reach(folder, name) is not None and folder / name not in read_index(folder / (name + _INDEX)).files:
        raise CheckpointError(
            f"{folder} holds {name} and {name + _INDEX}, which names other files: name the one that is meant"
        )
    return name + _INDEX


def _file(folder: Path, name: str) -> Path:
    file = reach(folder, name)
    if file is None:
        raise CheckpointError(f"{folder} has no {shown(name)} any more")
    return file


def _newest_snapshot(folder: Path) -> Path | None:
    """Of a model's part of the hub's cache, the snapshot that its main branch points to."""
    main = folder / "refs" / "main"
    if not folder.name.startswith("models--") or not os.path.isfile(main) or main.stat().st_size > 100:
        return None
    snapshot = folder / "snapshots" / main.read_text(encoding="ascii", errors="replace").strip()
    return snapshot if os.path.isdir(snapshot) else None


def _refuse_other_forms(folder: Path, names: list[str]) -> None:
    def ends(*suffixes: str) -> bool:
        return any(name.endswith(suffixes) for name in names)

    if ends(".distcp"):
        raise CheckpointError(
            f"{folder} holds a torch distributed checkpoint (.distcp); convert it first: "
            f"python -m torch.distributed.checkpoint.format_utils dcp_to_torch {folder} model.pt"
        )
    if "zero_to_fp32.py" in names or (ends("_model_states.pt") and ends("_optim_states.pt")):
        raise CheckpointError(
            f"{folder} holds a DeepSpeed checkpoint; convert it first: "
            f"python -m deepspeed.utils.zero_to_fp32 {folder} out"
        )
    if "adapter_config.json" in names:
        raise CheckpointError(
            f"{folder} holds an adapter (LoRA), not a model; merge it first, with merge_and_unload() of peft"
        )
    if "manifest.json" in names and "model.onnx" in names:
        raise CheckpointError(f"{folder} is a bundle that was exported already; give the checkpoint it was made from")


def _nothing(folder: Path, names: list[str]) -> str:
    inner = [name for name in names if any(os.path.isfile(folder / name / file) for file in (_SAFETENSORS, _BIN))]
    if inner:
        return f"{folder} holds no checkpoint itself, its folders do: {some(inner)}; name the one that is meant"
    if any(name.endswith(".gguf") for name in names):
        return f"{folder} holds a GGUF file; give the checkpoint that it was made from"
    expected = f"{_SAFETENSORS}, {_BIN} (or either in shards with an index) or model.pt"
    return f"{folder} holds no checkpoint: expected {expected}" + (
        f", found {some(names)}" if names else ": it is empty"
    )
