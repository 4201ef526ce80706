"""A state dict as `model.safetensors` with its `config.json`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor


def save_checkpoint(folder: str | Path, config: Any, state: Mapping[str, Tensor]) -> Path:
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
