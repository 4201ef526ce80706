"""Rules that look at the state, or at nothing: no weights of their own."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from mythos_model.exits.rule import FLAT, HALTING, Exit, distance, no_depth
from mythos_model.taps import decided, tap
from mythos_runtime.spec import ExitRule, Knob, StateTensor, TraceTensor


class Fixed(Exit):
    """Every token runs as many loops as it is given, and the last state answers. Nothing halts, so nothing is saved by
    halting: the depth is the caller's."""

    name: ClassVar[str] = "fixed"

    class State(NamedTuple):
        """`answer` is the state after the last loop so far."""

        answer: Tensor
        halted: Tensor
        depth: Tensor

    def start(self, h: Tensor, halted: Tensor) -> State:
        return self.State(h.clone(), halted, no_depth(halted))

    def update(
        self, state: State, h: Tensor, threshold: Tensor, last: Tensor, logits: Tensor | None = None
    ) -> tuple[State, Tensor]:
        depth = tap(state.depth + (~state.halted).to(state.depth.dtype), "depth")
        halted = state.halted | last
        return self.State(h.clone(), halted, depth), (~halted).any()

    def rule(self) -> ExitRule:
        return ExitRule(self.name, "every token runs max_loops loops, and the last state answers")

    def state(self, dim: int, first: str) -> tuple[StateTensor, ...]:
        return (StateTensor("answer", "float32", (*FLAT, dim), first), *HALTING)

    def trace(self, dim: int) -> tuple[TraceTensor, ...]:
        return (TraceTensor("depth", "int32", FLAT, "count"),)


class Converged(Exit):
    """A token leaves when a loop changes its state by less than the threshold; the answer is that state (Huginn).

    `latent-diff`: |h - h'| / |h|. `cosine`: 1 - cos(h, h'). The first loop is held against the state before it.
    """

    class State(NamedTuple):
        """`answer` is the state that a halted position left with, `before` the state of the loop before."""

        answer: Tensor
        before: Tensor
        halted: Tensor
        depth: Tensor

    def __init__(self, measure: str, threshold: float) -> None:
        super().__init__()
        self.measure, self.threshold = measure, threshold

    def start(self, h: Tensor, halted: Tensor) -> State:
        return self.State(h.clone(), h.clone(), halted, no_depth(halted))

    def update(
        self, state: State, h: Tensor, threshold: Tensor, last: Tensor, logits: Tensor | None = None
    ) -> tuple[State, Tensor]:
        change = tap(self._change(h, state.before), "change")
        answer = tap(torch.where(state.halted.unsqueeze(-1), state.answer, h), "answer")
        depth = tap(state.depth + (~state.halted).to(state.depth.dtype), "depth")
        decided("halted", lambda: distance(change, threshold, state.halted | last))
        halted = tap(state.halted | last | (change < threshold), "halted")  # whoever is left leaves with the last loop
        return self.State(answer, h.clone(), halted, depth), (~halted).any()

    def _change(self, h: Tensor, before: Tensor) -> Tensor:
        """[B, T, D] each -> [B, T]."""
        if self.measure == "latent-diff":
            return (h - before).square().sum(-1).sqrt() / h.square().sum(-1).sqrt()
        norms = h.square().sum(-1).sqrt() * before.square().sum(-1).sqrt()
        # Rounding takes the cosine of a state that stands still above 1: below a threshold of 0 nothing may fall.
        return (1 - (h * before).sum(-1) / norms.clamp(min=1e-8)).clamp(min=0)

    def rule(self) -> ExitRule:
        what = "relative change" if self.measure == "latent-diff" else "turn (1 - cosine)"
        meaning = f"a token leaves with the first state whose {what} in one loop is below halt_threshold"
        return ExitRule(self.measure, meaning, (Knob("halt_threshold", self.threshold, None, None, what),))

    def state(self, dim: int, first: str) -> tuple[StateTensor, ...]:
        return (
            StateTensor("answer", "float32", (*FLAT, dim), first),
            StateTensor("before", "float32", (*FLAT, dim), first),
            *HALTING,
        )

    def trace(self, dim: int) -> tuple[TraceTensor, ...]:
        return (
            TraceTensor("change", "float32", FLAT, "value", until_halted=True, unit=True),
            TraceTensor("answer", "float32", (*FLAT, dim), "value"),
            TraceTensor("depth", "int32", FLAT, "count"),
            TraceTensor("halted", "bool", FLAT, "halted", of="change"),
        )
