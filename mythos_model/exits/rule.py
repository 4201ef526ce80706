"""What an exit rule is to the drivers of `looped`, and what the rules share."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mythos_runtime.spec import ExitRule, StateTensor, TraceTensor

FLAT = ("B", "T")


class Exit(nn.Module, ABC):
    """What the drivers of `looped` ask of a rule."""

    name: ClassVar[str]
    State: ClassVar[Any]
    """A NamedTuple of tensors."""
    reads_logits: ClassVar[bool] = False
    """Whether it decides by what a state would answer: the layers behind the loop and the head then run at every loop.
    Rows of several depths cannot do that together: such a model has no row graphs."""

    @abstractmethod
    def start(self, h: Tensor, halted: Tensor) -> Any:
        """The state before the first loop, from the carried h [B, T, D].

        Padding counts as halted: nobody waits for it.
        """

    @abstractmethod
    def update(
        self, state: Any, h: Tensor, threshold: Tensor, last: Tensor, logits: Tensor | None = None
    ) -> tuple[Any, Tensor]:
        """The state with one more loop in it, and bool []: whether any position runs on.

        Args:
            h: [B, T, D], what the loop computed.
            threshold: [], in h's dtype.
            last: bool [], whether no further loop is allowed.
            logits: [B, T, V] that h would answer with, where the rule reads them.
        """

    @abstractmethod
    def rule(self) -> ExitRule:
        """The rule as the bundle states it."""

    @abstractmethod
    def state(self, dim: int, first: str) -> tuple[StateTensor, ...]:
        """Its state as the bundle states it; `first` is what h begins as, "encoded" or "initial"."""

    @abstractmethod
    def trace(self, dim: int) -> tuple[TraceTensor, ...]:
        """What it shows of every loop."""


HALTING = (StateTensor("halted", "bool", FLAT, "zeros"), StateTensor("depth", "int32", FLAT, "zeros"))


def zeros(h: Tensor) -> Tensor:
    """[B, T] in the dtype of h [B, T, D]."""
    return torch.zeros(h.shape[:-1], dtype=h.dtype, device=h.device)


def no_depth(halted: Tensor) -> Tensor:
    return torch.zeros(halted.shape, dtype=torch.int32, device=halted.device)


def distance(value: Tensor, threshold: Tensor, halted: Tensor) -> Tensor:
    """How far a position is from the threshold, inf where it has halted before: nothing was decided there."""
    return torch.where(halted, math.inf, (value - threshold).abs())
