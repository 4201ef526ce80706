"""Reading `.pt` files without running code from them.

The reference's training script pickles its configuration object into the checkpoint. That object is read as an inert
record of its fields: its class is never imported, and a file that asks for any other class is refused by name.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch

from mythos_model.errors import CheckpointError

CONFIG_CLASS = "MythosConfig"


class PickledConfig:
    """Stands in for the class of a pickled configuration: holds the fields, does nothing."""


def read_pt(path: Path) -> Any:
    """The object stored in a `.pt` file: tensors, containers and at most a `PickledConfig`.

    Raises:
        CheckpointError: no such format, damaged, or the file asks for code.
    """
    if zipfile.is_zipfile(path):
        wanted = _unsafe_globals(path)
        foreign = [name for name in wanted if name.rpartition(".")[2] != CONFIG_CLASS]
        if foreign:
            raise CheckpointError(
                f"{path} wants to run code to be read ({', '.join(foreign)}), which is refused; "
                "save its state dict alone with torch.save(model.state_dict(), ...) or as safetensors"
            )
        allowed: list[Any] = [(PickledConfig, name) for name in wanted]
        mmap = True
    else:
        allowed, mmap = [], False
    try:
        with torch.serialization.safe_globals(allowed):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # unpickling damaged bytes raises almost anything
        raise CheckpointError(f"{path} is not a readable PyTorch checkpoint: {_first_line(error)}") from error


def _unsafe_globals(path: Path) -> list[str]:
    try:
        return list(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception as error:
        raise CheckpointError(f"{path} is not a readable PyTorch checkpoint: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
