"""Everything that training needs to go on, in one safetensors file that appears whole or not at all.

The tensors are the parameters (`model.*`) and AdamW's state (`exp_avg.*`, `exp_avg_sq.*`, `step.*`); the header's
metadata holds the rest as JSON: the step, the run's settings, the task's state and the recorded figures. No code is
stored or run.
Beside it is `model.safetensors` with `config.json`, ready for mythos-export.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor

from mythos_model.checkpoint import save_checkpoint
from mythos_model.errors import CheckpointError
from mythos_model.families.openmythos import MythosModel

FILE = "training.safetensors"
FORMAT = "mythos training 1"
OPTIMIZER = ("exp_avg", "exp_avg_sq", "step")  # what AdamW keeps per parameter


@dataclass(frozen=True)
class Progress:
    """The part of a run that is not tensors.

    Attributes:
        step: optimizer steps done.
        settings: what the run was started with, the task's parameters included; a resumed run must be given the same.
        task: `Task.state()`.
        history: recorded figures, one dict per record.
    """

    step: int
    settings: dict[str, Any]
    task: dict[str, Any]
    history: list[dict[str, float]]


def save_training(folder: Path, model: MythosModel, optimizer: torch.optim.AdamW, progress: Progress) -> None:
    """Write `training.safetensors`, then `model.safetensors` and `config.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        if parameter in optimizer.state:  # not before its first gradient
            tensors |= {f"{kind}.{name}": optimizer.state[parameter][kind] for kind in OPTIMIZER}
    partial = folder / f"{FILE}.partial"
    header = {"format": FORMAT, "progress": json.dumps(vars(progress))}
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, partial, header)
    os.replace(partial, folder / FILE)
    save_checkpoint(folder, model.config, model.reference_state())


def load_training(folder: Path, model: MythosModel, optimizer: torch.optim.AdamW) -> Progress:
    """Put the stored weights and moments into `model` and `optimizer`.

    Raises:
        CheckpointError: there is no such file, it is damaged, or it belongs to another model.
    """
    file = folder / FILE
    if not file.is_file():
        raise CheckpointError(f"there is no {file} to resume from; train without --resume first")
    try:
        with safetensors.safe_open(file, "pt") as stored:
            header = stored.metadata() or {}
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        if header.get("format") != FORMAT:
            raise CheckpointError(f"{file} is of format {header.get('format')!r}, expected {FORMAT!r}")
        progress = Progress(**json.loads(header["progress"]))
    except (safetensors.SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file} is no readable training checkpoint: {error}") from error
    try:
        model.load_state_dict(_part(tensors, "model."))
    except RuntimeError as error:
        raise CheckpointError(f"{file} was trained with another configuration: {error}") from error
    kept = {kind: _part(tensors, f"{kind}.") for kind in OPTIMIZER}
    for name, parameter in model.named_parameters():
        if name in kept["step"]:
            optimizer.state[parameter] = {kind: kept[kind][name] for kind in OPTIMIZER}
    return progress


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
