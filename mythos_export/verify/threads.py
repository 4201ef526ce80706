"""How many threads PyTorch takes: none beside its own for a small model, where waking them costs more than they do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

SMALL = 16 << 20  # bytes of weights


@contextlib.contextmanager
def threads(count: int | None) -> Iterator[None]:
    """So many inside (None: as many as there are); as many as before afterwards."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def few_threads(model: torch.nn.Module) -> contextlib.AbstractContextManager[None]:
    """One thread inside, of a model that is small."""
    size = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    return threads(1 if size < SMALL else None)
