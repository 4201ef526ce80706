"""Exit rules: what a token's answer is made of, and when it has been looped enough.

A rule is a module (its gate has weights) with a state of its own, a NamedTuple whose fields are tensors: `answer`
[B, T, D], `halted` bool [B, T] and `depth` int32 [B, T] are in every state. Everything is float32 (float64 in a float64
model) at every precision. Names of the trace are those of the fields.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from mythos_model import ops
from mythos_model.taps import decided, tap
from mythos_runtime.spec import ExitRule, Knob, StateTensor, TraceTensor

FLAT = ("B", "T")


class Exit(nn.Module, ABC):
    """What the drivers of `looped` ask of a rule."""

    name: ClassVar[str]
    State: ClassVar[Any]
    """A NamedTuple of tensors."""

    @abstractmethod
    def start(self, h: Tensor, halted: Tensor) -> Any:
        """The state before the first loop, from the carried h [B, T, D].

        Padding counts as halted: nobody waits for it.
        """

    @abstractmethod
    def update(self, state: Any, h: Tensor, threshold: Tensor, last: Tensor) -> tuple[Any, Tensor]:
        """The state with one more loop in it, and bool []: whether any position runs on.

        Args:
            h: [B, T, D], what the loop computed.
            threshold: [], in h's dtype.
            last: bool [], whether no further loop is allowed.
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
        return self.State(torch.zeros_like(h), _zeros(h), halted, _no_depth(halted))

    def update(self, state: State, h: Tensor, threshold: Tensor, last: Tensor) -> tuple[State, Tensor]:
        act = torch.ops.mythos.act_halting if torch.compiler.is_exporting() else ops.act_halting
        weight, bias = self.halt.weight.to(h.dtype), self.halt.bias.to(h.dtype)
        _p, *new, running = act(h, *state, weight, bias, threshold)
        decided("halted", lambda: _distance(new[1], threshold, state.halted))
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
            *_HALTING,
        )

    def trace(self, dim: int) -> tuple[TraceTensor, ...]:
        return (
            TraceTensor("cumulative", "float32", FLAT, "value", unit=True),
            TraceTensor("depth", "int32", FLAT, "count"),
            TraceTensor("halted", "bool", FLAT, "halted", of="cumulative"),
            TraceTensor("out", "float32", (*FLAT, dim), "value"),
        )


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
        return self.State(h.clone(), _zeros(h), torch.ones_like(_zeros(h)), halted, _no_depth(halted))

    def update(self, state: State, h: Tensor, threshold: Tensor, last: Tensor) -> tuple[State, Tensor]:
        logit = ops.halting_logit(h, self.gate.weight.to(h.dtype), self.gate.bias.to(h.dtype))
        # Written out: ONNX Runtime's own Sigmoid flushes its tail to zero.
        leave = tap(torch.reciprocal(1 + torch.exp(-logit)), "leave")
        left = tap(state.left + leave * state.stays, "left")
        answer = tap(torch.where(state.halted.unsqueeze(-1), state.answer, h), "answer")
        depth = tap(state.depth + (~state.halted).to(state.depth.dtype), "depth")
        decided("halted", lambda: _distance(left, threshold, state.halted | last))
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
            *_HALTING,
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
        """`answer` is the weighted sum so far, `stays` [B, T] the probability of not having left."""

        answer: Tensor
        stays: Tensor
        halted: Tensor
        depth: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gate = nn.Linear(dim, 1)

    def start(self, h: Tensor, halted: Tensor) -> State:
        return self.State(torch.zeros_like(h), torch.ones_like(_zeros(h)), halted, _no_depth(halted))

    def update(self, state: State, h: Tensor, threshold: Tensor, last: Tensor) -> tuple[State, Tensor]:
        logit = ops.halting_logit(h, self.gate.weight.to(h.dtype), self.gate.bias.to(h.dtype))
        leave = torch.reciprocal(1 + torch.exp(-logit))
        share = tap(torch.where(last, state.stays, leave * state.stays), "share")
        answer = tap(state.answer + share.unsqueeze(-1) * h, "answer")
        depth = tap(state.depth + (~state.halted).to(state.depth.dtype), "depth")
        halted = state.halted.clone()  # a loop may not hand on a tensor unchanged
        return self.State(answer, state.stays * (1 - leave), halted, depth), (~halted).any()

    def rule(self) -> ExitRule:
        return ExitRule(self.name, "every loop runs, and the answer is the expectation over all of them")

    def state(self, dim: int, first: str) -> tuple[StateTensor, ...]:
        return (
            StateTensor("answer", "float32", (*FLAT, dim), "zeros"),
            StateTensor("stays", "float32", FLAT, "ones"),
            *_HALTING,
        )

    def trace(self, dim: int) -> tuple[TraceTensor, ...]:
        return (
            TraceTensor("share", "float32", FLAT, "value", unit=True),
            TraceTensor("answer", "float32", (*FLAT, dim), "value"),
            TraceTensor("depth", "int32", FLAT, "count"),
        )


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
        return self.State(h.clone(), halted, _no_depth(halted))

    def update(self, state: State, h: Tensor, threshold: Tensor, last: Tensor) -> tuple[State, Tensor]:
        depth = tap(state.depth + (~state.halted).to(state.depth.dtype), "depth")
        halted = state.halted | last
        return self.State(h.clone(), halted, depth), (~halted).any()

    def rule(self) -> ExitRule:
        return ExitRule(self.name, "every token runs max_loops loops, and the last state answers")

    def state(self, dim: int, first: str) -> tuple[StateTensor, ...]:
        return (StateTensor("answer", "float32", (*FLAT, dim), first), *_HALTING)

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
        return self.State(h.clone(), h.clone(), halted, _no_depth(halted))

    def update(self, state: State, h: Tensor, threshold: Tensor, last: Tensor) -> tuple[State, Tensor]:
        change = tap(self._change(h, state.before), "change")
        answer = tap(torch.where(state.halted.unsqueeze(-1), state.answer, h), "answer")
        depth = tap(state.depth + (~state.halted).to(state.depth.dtype), "depth")
        decided("halted", lambda: _distance(change, threshold, state.halted | last))
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
            *_HALTING,
        )

    def trace(self, dim: int) -> tuple[TraceTensor, ...]:
        return (
            TraceTensor("change", "float32", FLAT, "value", until_halted=True, unit=True),
            TraceTensor("answer", "float32", (*FLAT, dim), "value"),
            TraceTensor("depth", "int32", FLAT, "count"),
            TraceTensor("halted", "bool", FLAT, "halted", of="change"),
        )


_HALTING = (StateTensor("halted", "bool", FLAT, "zeros"), StateTensor("depth", "int32", FLAT, "zeros"))


def _zeros(h: Tensor) -> Tensor:
    """[B, T] in the dtype of h [B, T, D]."""
    return torch.zeros(h.shape[:-1], dtype=h.dtype, device=h.device)


def _no_depth(halted: Tensor) -> Tensor:
    return torch.zeros(halted.shape, dtype=torch.int32, device=halted.device)


def _distance(value: Tensor, threshold: Tensor, halted: Tensor) -> Tensor:
    """How far a position is from the threshold, inf where it has halted before: nothing was decided there."""
    return torch.where(halted, math.inf, (value - threshold).abs())
