"""The reduced twin of a checkpoint: the same model with fewer layers, experts, loops and ids, on the first of
its weights.

Its widths are the model's, so that every operator works on the shapes that it has there; what it answers is another
thing than what the model does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

from torch import Tensor

from mythos_model.checkpoint.load import Checkpoint
from mythos_model.errors import ModelError
from mythos_model.families.family import Shape


def reduced(checkpoint: Checkpoint) -> Checkpoint:
    """The twin's configuration and weights; views of the checkpoint's.

    Raises:
        ModelError: the family has no reduced configuration.
    """
    family = checkpoint.family
    if family.twin is None:
        raise ModelError(f"{family.name} has no reduced twin; verify in full, or later")
    config = family.twin(checkpoint.config)
    return dataclasses.replace(checkpoint, config=config, state=Corners(checkpoint.state, family.shapes(config)))


def reductions(checkpoint: Checkpoint, twin: Checkpoint) -> list[str]:
    """What the twin has fewer of, in words."""
    before, after = checkpoint.config.to_dict(), twin.config.to_dict()
    return [f"{name} {after[name]} of {before[name]}" for name in before if before[name] != after[name]]


class Corners(Mapping[str, Tensor]):
    """Tensors of these names and shapes: the first rows, and the first of every row, of others."""

    def __init__(self, state: Mapping[str, Tensor], shapes: Mapping[str, Shape]) -> None:
        self.state, self.shapes = state, shapes

    def __getitem__(self, name: str) -> Tensor:
        return self.state[name][tuple(slice(size) for size in self.shapes[name])]

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)
