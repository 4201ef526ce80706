"""Tables of rotary frequencies that a folder stores are held to its configuration, in the dtype that they come in."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mythos_model.checkpoint.rotary import check_table
from mythos_model.errors import CheckpointError

WIDTH = 128


def frequencies(base: float) -> torch.Tensor:
    return base ** -(torch.arange(0, WIDTH, 2, dtype=torch.float64) / WIDTH)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("base", [1e4, 5e6, 7e7])
def test_frequencies_are_known_in_every_dtype(base: float, dtype: torch.dtype) -> None:
    """In float16 the small ones are subnormal, with few bits left."""
    check_table(Path("model"), "inv_freq", frequencies(base).to(dtype), base, WIDTH)
    with pytest.raises(CheckpointError, match="is not the one for a base of"):
        check_table(Path("model"), "inv_freq", frequencies(base).to(dtype), 2 * base, WIDTH)
