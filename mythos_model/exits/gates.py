"""Learnt gates that say after every loop with what probability to leave."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from mythos_model import ops
from mythos_model.exits.rule import FLAT, HALTING, Exit, distance, no_depth, zeros
from mythos_model.taps import decided, tap
from mythos_runtime.spec import ExitRule, Knob, StateTensor, TraceTensor


class Quantile(Exit):
    """A learnt gate says after every loop with what probability to leave; the answer is the first state at which the
    summed probability of having left reaches the threshold, or the last one (Ouro, arXiv:2510.25741).

    The gate is computed in float32 at every precision: near a threshold of 1 a half-precision sigmoid that rounds to 1
    leaves where float32 does not.
    """

    name: ClassVar[str] = "quantile"

    class State(NamedTuple):
        """`answer` is the state that a halted position left with, `left` [B, T] the probability of having left,
        `stays` [B, T] that of not having done so at any gate."""

        answer: Tensor
        left: Tensor
        stays: Tensor
        halted: Tensor
        depth: Tensor

    def __init__(self, dim: int, threshold: float) -> None:
        super().__init__()
        self.gate = nn.Linear(dim, 1)
        self.threshold = threshold

    def start(self, h: Tensor, halted: Tensor) -> State:
        return self.State(h.clone(), zeros(h), torch.ones_like(zeros(h)), halted, no_depth(halted))

    def update(
        self, state: State, h: Tensor, threshold: Tensor, last: Tensor, logits: Tensor | None = None
    ) -> tuple[State, Tensor]:
        logit = ops.halting_logit(h, self.gate.weight.to(h.dtype), self.gate.bias.to(h.dtype))
        # Written out: ONNX Runtime's own Sigmoid flushes its tail to zero.
        leave = tap(torch.reciprocal(1 + torch.exp(-logit)), "leave")
        left = tap(state.left + leave * state.stays, "left")
        answer = tap(torch.where(state.halted.unsqueeze(-1), state.answer, h), "answer")
        depth = tap(state.depth + (~state.halted).to(state.depth.dtype), "depth")
        decided("halted", lambda: distance(left, threshold, state.halted | last))
        halted = tap(state.halted | last | (left >= threshold), "halted")  # whoever is left leaves with the last loop
        return self.State(answer, left, state.stays * (1 - leave), halted, depth), (~halted).any()

    def rule(self) -> ExitRule:
        meaning = "a token leaves with the first state whose summed probability of leaving reaches halt_threshold"
        knob = Knob("halt_threshold", self.threshold, None, None, "summed probability; infinite: only the last loop")
        return ExitRule(self.name, meaning, (knob,))

    def state(self, dim: int, first: str) -> tuple[StateTensor, ...]:
        return (
            StateTensor("answer", "float32", (*FLAT, dim), first),
            StateTensor("left", "float32", FLAT, "zeros"),
            StateTensor("stays", "float32", FLAT, "ones"),
            *HALTING,
        )

    def trace(self, dim: int) -> tuple[TraceTensor, ...]:
        return (
            TraceTensor("leave", "float32", FLAT, "value", until_halted=True, unit=True),
            TraceTensor("left", "float32", FLAT, "value", until_halted=True, unit=True),
            TraceTensor("answer", "float32", (*FLAT, dim), "value"),
            TraceTensor("depth", "int32", FLAT, "count"),
            TraceTensor("halted", "bool", FLAT, "halted", of="left"),
        )


class Expectation(Exit):
    """The answer is the expectation of the states under the probabilities of leaving that a learnt gate gives (Ouro's
    weighted exit): a head that is linear makes the same of it as of every state's logits. Nothing halts."""

    name: ClassVar[str] = "weighted"

    class State(NamedTuple):
        """`answer` is the weighted sum so far, `spent` [B, T] the sum of the weights."""

        answer: Tensor
        spent: Tensor
        halted: Tensor
        depth: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gate = nn.Linear(dim, 1)

    def start(self, h: Tensor, halted: Tensor) -> State:
        return self.State(torch.zeros_like(h), zeros(h), halted, no_depth(halted))

    def update(
        self, state: State, h: Tensor, threshold: Tensor, last: Tensor, logits: Tensor | None = None
    ) -> tuple[State, Tensor]:
        logit = ops.halting_logit(h, self.gate.weight.to(h.dtype), self.gate.bias.to(h.dtype))
        leave = torch.reciprocal(1 + torch.exp(-logit))
        left = 1 - state.spent
        share = tap(torch.where(last, left, leave * left), "share")
        answer = tap(state.answer + share.unsqueeze(-1) * h, "answer")
        depth = tap(state.depth + (~state.halted).to(state.depth.dtype), "depth")
        halted = state.halted.clone()  # a loop may not hand on a tensor unchanged
        return self.State(answer, state.spent + share, halted, depth), (~halted).any()

    def rule(self) -> ExitRule:
        return ExitRule(self.name, "every loop runs, and the answer is the expectation over all of them", spent="spent")

    def state(self, dim: int, first: str) -> tuple[StateTensor, ...]:
        return (
            StateTensor("answer", "float32", (*FLAT, dim), "zeros"),
            StateTensor("spent", "float32", FLAT, "zeros"),
            *HALTING,
        )

    def trace(self, dim: int) -> tuple[TraceTensor, ...]:
        return (
            TraceTensor("share", "float32", FLAT, "value", unit=True),
            TraceTensor("answer", "float32", (*FLAT, dim), "value"),
            TraceTensor("depth", "int32", FLAT, "count"),
        )
