"""Rotary tables that a checkpoint stores: recomputed, never loaded, but held to the configuration."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from mythos_model.errors import CheckpointError

_ROUNDED = 0.02  # of a cosine in bfloat16, twice over
_PER_POSITION = 2e-7  # of an angle in float32


def check_table(source: Path, name: str, table: Tensor, base: float, width: int) -> None:
    """Hold a stored table of e^(i * position * base^(-2j/width)) to a configuration.

    Args:
        table: complex [positions, width/2], or its cosines and sines, [..., positions, ..., width/2, 2]; or what a
            position is multiplied by alone, base^(-2j/width), [width/2].

    Raises:
        CheckpointError: it was made for another base or width, so that the configuration is not the one of training.
    """
    if not table.is_complex() and table.is_floating_point() and table.ndim > 1 and table.shape[-1] == 2:
        table = torch.view_as_complex(table.float().contiguous())
    held = table.is_complex() or (table.is_floating_point() and table.ndim == 1)
    if not held or table.ndim == 0 or table.shape[-1] != width // 2 or not _made_for(table, base, width):
        raise CheckpointError(
            f"{source}: its rotary table {name} {list(table.shape)} is not the one for a base of {base:g} and {width} "
            "channels, as the configuration has them; give the configuration that the model was trained with"
        )


def _made_for(table: Tensor, base: float, width: int) -> bool:
    """Whether the second, the middle and the last position are where they should be; of frequencies, all of them."""
    exponent = torch.arange(0, width, 2, dtype=torch.float64) / width
    if not table.is_complex():
        expected, coarse = base**-exponent, torch.finfo(table.dtype).smallest_normal  # fp16 has no exact small ones
        return bool(((table.double() - expected).abs() < _ROUNDED * expected + coarse).all())
    rows = table.reshape(-1, table.shape[-1]).to(torch.complex128)
    for position in {min(1, len(rows) - 1), len(rows) // 2, len(rows) - 1} if len(rows) else ():
        expected = torch.polar(torch.ones_like(exponent), position * base**-exponent)
        if not bool(((rows[position] - expected).abs() < _ROUNDED + _PER_POSITION * position).all()):
            return False
    return True
