"""What the trainer asks of a task."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from torch import Tensor

from mythos_model.families.openmythos import MythosConfig, MythosModel

Metrics = dict[str, float]


class Task(Protocol):
    """A model's shape, its data and its loss. `hops.py`, `walk.py` and `text.py` beside this are those that ship."""

    name: str
    config: MythosConfig
    steps: int  # optimizer steps of the recipe
    warmup: int  # steps of rising learning rate
    betas: tuple[float, float]  # of AdamW
    weight_decay: float  # on matrices; norms, biases and scales have none

    def parameters(self) -> dict[str, Any]:
        """After `prepare`: what determines the data and the loss, as JSON; a resumed run must agree."""
        ...

    def prepare(self) -> None:
        """Fetch or build what training needs (ModelError where it cannot be had)."""
        ...

    def initialise(self, model: MythosModel, seed: int) -> None:
        """Set the starting weights."""
        ...

    def learning_rate(self) -> float:
        """The peak of the schedule, now."""
        ...

    def loss(self, model: MythosModel, random: np.random.Generator) -> tuple[Tensor, Tensor, Metrics]:
        """Draw a batch: the loss (scalar), the experts' load [E], and figures to record."""
        ...

    def evaluate(self, model: MythosModel) -> dict[str, Any]:
        """Held-out figures, as JSON."""
        ...

    def held_out_inputs(self) -> dict[str, Tensor]:
        """A sample to measure a bundle on: `input_ids` [Q, T], and `answer` [Q] where the last position has one."""
        ...

    def state(self) -> dict[str, Any]:
        """What the task must remember when training is resumed, as JSON."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `state` gave."""
        ...
