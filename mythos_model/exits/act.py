"""Adaptive Computation Time."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from mythos_model import ops
from mythos_model.exits.rule import FLAT, HALTING, Exit, distance, no_depth, zeros
from mythos_model.taps import decided, tap
from mythos_runtime.spec import ExitRule, Knob, StateTensor, TraceTensor


class Act(Exit):
    """Adaptive Computation Time (arXiv:1603.08983): the answer is the halting-weighted sum of the states."""

    name: ClassVar[str] = "act"

    class State(NamedTuple):
        """`answer` is the weighted sum so far, `cumulative` [B, T] the summed halting probability."""

        answer: Tensor
        cumulative: Tensor
        halted: Tensor
        depth: Tensor

    def __init__(self, dim: int, threshold: float) -> None:
        super().__init__()
        self.halt = nn.Linear(dim, 1)
        self.threshold = threshold

    def logit(self, h: Tensor) -> Tensor:  # [..., D] -> [...]
        return ops.halting_logit(h, self.halt.weight.to(h.dtype), self.halt.bias.to(h.dtype))

    def start(self, h: Tensor, halted: Tensor) -> State:
        return self.State(torch.zeros_like(h), zeros(h), halted, no_depth(halted))

    def update(
        self, state: State, h: Tensor, threshold: Tensor, last: Tensor, logits: Tensor | None = None
    ) -> tuple[State, Tensor]:
        act = torch.ops.mythos.act_halting if torch.compiler.is_exporting() else ops.act_halting
        weight, bias = self.halt.weight.to(h.dtype), self.halt.bias.to(h.dtype)
        _p, *new, running = act(h, *state, weight, bias, threshold)
        decided("halted", lambda: distance(new[1], threshold, state.halted))
        names = ("out", "cumulative", "halted", "depth")
        return self.State(*(tap(tensor, name) for tensor, name in zip(new, names, strict=True))), running

    def rule(self) -> ExitRule:
        meaning = "a token halts when its summed halting probability reaches halt_threshold"
        knob = Knob("halt_threshold", self.threshold, None, None, "summed probability")
        return ExitRule(self.name, meaning, (knob,), spent="cumulative")

    def state(self, dim: int, first: str) -> tuple[StateTensor, ...]:
        return (
            StateTensor("out", "float32", (*FLAT, dim), "zeros"),
            StateTensor("cumulative", "float32", FLAT, "zeros"),
            *HALTING,
        )

    def trace(self, dim: int) -> tuple[TraceTensor, ...]:
        return (
            TraceTensor("cumulative", "float32", FLAT, "value", unit=True),
            TraceTensor("depth", "int32", FLAT, "count"),
            TraceTensor("halted", "bool", FLAT, "halted", of="cumulative"),
            TraceTensor("out", "float32", (*FLAT, dim), "value"),
        )
