"""One file of weights, whatever its name says that it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mythos_model.checkpoint.files import Mapped
from mythos_model.checkpoint.kinds import kind_of
from mythos_model.checkpoint.pickled import PickledTensor
from mythos_model.checkpoint.pt import PtFile, looks_like_pt
from mythos_model.checkpoint.safetensors import looks_like_safetensors, read_safetensors
from mythos_model.checkpoint.sets import TOP, choose_set, config_in, weights_in
from mythos_model.checkpoint.stored import Stored
from mythos_model.errors import CheckpointError, some


@dataclass(frozen=True)
class Weights:
    """What one file holds.

    Attributes:
        path: the file.
        bytes: its size.
        tensors: under the names of the file.
        config: the configuration that was saved with them; None where there is none.
        form: "safetensors", "training checkpoint" or "state dict".
        wanted: what of `weights_key` is still to be found in the tensors' names.
    """

    path: Path
    bytes: int
    tensors: dict[str, Stored]
    config: dict[str, Any] | None
    form: str
    wanted: str | None


def open_weights(path: Path, weights_key: str | None, notes: list[str]) -> Weights:
    """The tensors of a file, none of them read. What is left out of it is said in `notes`.

    Raises:
        CheckpointError: it is damaged, of another kind, or several sets of weights could be meant.
    """
    file = Mapped(path)
    start = bytes(file.memory[:512])
    if looks_like_safetensors(file):
        return Weights(path, len(file), read_safetensors(file), None, "safetensors", weights_key)
    if not looks_like_pt(file):
        kind = kind_of(start)
        if path.suffix == ".safetensors" and kind is None:
            kind = "truncated, or no safetensors file: its header does not fit the file's size"
        expected = "a .pt or .safetensors checkpoint, or the folder of one"
        raise CheckpointError(f"{path} is {kind or 'no checkpoint'}; expected {expected}")
    pt = PtFile(file)
    sets = weights_in(pt.value, path)
    key, wanted = choose_set(sets, weights_key, path)
    if len(sets) > 1:
        notes.append(f"{path} holds several sets of weights ({some(sets)}): those under {key!r} are taken")
    values = sets[key]
    tensors = {name: pt.stored(name, value) for name, value in values.items() if isinstance(value, PickledTensor)}
    if key != TOP and len(tensors) < len(values):
        others = [name for name in values if name not in tensors]
        notes.append(f"{path}: left out, since they are no tensors: {some(others)}")
    form = "state dict" if key == TOP else "training checkpoint"
    return Weights(path, len(file), tensors, config_in(pt.value, path), form, wanted)
