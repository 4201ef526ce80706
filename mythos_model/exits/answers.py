"""Rules that look at what a state would answer (Huginn): a token leaves when another loop would not change its answer.

They cost the layers behind the loop and the head at every loop. What an earlier token of the same call shows those
layers is, while it has not left, its state of this loop; so where tokens of a prompt leave depends on how it is cut. A
token that is decoded by itself sees what the cache holds.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from mythos_model.exits.rule import FLAT, HALTING, Exit, distance, no_depth, zeros
from mythos_model.taps import chosen, decided, tap
from mythos_runtime.spec import ExitRule, Knob, StateTensor, TraceTensor

FEW = 0.1  # of the largest probability: below it, min-p KL takes all for equally unlikely


class Answered(Exit):
    """What they share. Each carries what it compares the next loop's logits to."""

    reads_logits = True
    what: ClassVar[str]
    """`change`, in words."""

    def __init__(self, vocabulary: int, threshold: float) -> None:
        super().__init__()
        self.vocabulary, self.threshold = vocabulary, threshold

    @abstractmethod
    def compare(self, state: Any, logits: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """`change` [B, T], and the state's own tensors for the next loop."""

    def leaves(self, change: Tensor, threshold: Tensor) -> Tensor:
        return change < threshold

    def margin(self, change: Tensor, threshold: Tensor, decided: Tensor) -> Tensor:
        return distance(change, threshold, decided)

    def update(
        self, state: Any, h: Tensor, threshold: Tensor, last: Tensor, logits: Tensor | None = None
    ) -> tuple[Any, Tensor]:
        assert logits is not None
        change, own = self.compare(state, logits)
        change = tap(change, "change")
        answer = tap(torch.where(state.halted.unsqueeze(-1), state.answer, h), "answer")
        depth = tap(state.depth + (~state.halted).to(state.depth.dtype), "depth")
        decided("halted", lambda: self.margin(change, threshold, state.halted | last))
        halted = tap(state.halted | last | self.leaves(change, threshold), "halted")
        return self.State(answer, *own, halted, depth), (~halted).any()

    def rule(self) -> ExitRule:
        meaning = f"a token leaves when {self.what} halt_threshold; every loop runs the layers behind it and the head"
        return ExitRule(self.name, meaning, (Knob("halt_threshold", self.threshold, None, None, self.what),))

    def trace(self, dim: int) -> tuple[TraceTensor, ...]:
        return (
            TraceTensor("change", "float32", FLAT, "value", until_halted=True),
            TraceTensor("answer", "float32", (*FLAT, dim), "value"),
            TraceTensor("depth", "int32", FLAT, "count"),
            TraceTensor("halted", "bool", FLAT, "halted", of="change"),
        )


class EntropyDiff(Answered):
    """|H - H'| of the entropies of the next token; the first loop is held against 100."""

    name: ClassVar[str] = "entropy-diff"
    what: ClassVar[str] = "its next token's entropy changes by less than"
    FIRST: ClassVar[float] = 100.0

    class State(NamedTuple):
        """`entropy` [B, T]: after the loop before."""

        answer: Tensor
        entropy: Tensor
        halted: Tensor
        depth: Tensor

    def start(self, h: Tensor, halted: Tensor) -> State:
        return self.State(h.clone(), zeros(h), halted, no_depth(halted))

    def compare(self, state: State, logits: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        probability = torch.softmax(logits, -1)
        entropy = -(probability * torch.log(probability + 1e-10)).sum(-1)
        before = torch.where(state.depth == 0, self.FIRST, state.entropy)
        return (entropy - before).abs(), (entropy,)

    def state(self, dim: int, first: str) -> tuple[StateTensor, ...]:
        answer = StateTensor("answer", "float32", (*FLAT, dim), first)
        return (answer, StateTensor("entropy", "float32", FLAT, "zeros"), *HALTING)


class Divergence(Answered):
    """KL(previous || this) of the next token's probabilities; the first loop is held against equal ones.

    `minp`: what is below a tenth of the largest probability counts as 1/V before both are compared.
    """

    name: ClassVar[str] = "kl"
    what: ClassVar[str] = "the divergence of its next token's probabilities from those before is less than"

    class State(NamedTuple):
        """`likelihood` [B, T, V]: logarithms of the probabilities, over those of equal ones."""

        answer: Tensor
        likelihood: Tensor
        halted: Tensor
        depth: Tensor

    def start(self, h: Tensor, halted: Tensor) -> State:
        equal = torch.zeros(*h.shape[:-1], self.vocabulary, dtype=h.dtype, device=h.device)
        return self.State(h.clone(), equal, halted, no_depth(halted))

    def probabilities(self, logits: Tensor) -> Tensor:
        """Their logarithms."""
        return torch.log_softmax(logits, -1)

    def compare(self, state: State, logits: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        likelihood = self.probabilities(logits) + math.log(self.vocabulary)
        before = torch.exp(state.likelihood) / self.vocabulary
        # Rounding takes the divergence of two equal ones below zero: below a threshold of 0 nothing may fall.
        return (before * (state.likelihood - likelihood)).sum(-1).clamp(min=0), (likelihood,)

    def state(self, dim: int, first: str) -> tuple[StateTensor, ...]:
        answer = StateTensor("answer", "float32", (*FLAT, dim), first)
        return (answer, StateTensor("likelihood", "float32", (*FLAT, self.vocabulary), "zeros"), *HALTING)


class MinPDivergence(Divergence):
    """The same after every probability below a tenth of the largest was made 1/V, and all were made to sum to 1."""

    name: ClassVar[str] = "minp-kl"

    def probabilities(self, logits: Tensor) -> Tensor:
        probability = torch.softmax(logits, -1)
        few = probability < FEW * probability.amax(-1, keepdim=True)
        kept = torch.where(few, 1 / self.vocabulary, probability)
        return torch.log(kept / kept.sum(-1, keepdim=True))


class StableChoice(Answered):
    """Loops in a row that have not changed the likeliest next token; leaves when there are `halt_threshold` of them."""

    name: ClassVar[str] = "argmax-stability"
    what: ClassVar[str] = "the number of loops in a row that kept its likeliest next token reaches"

    class State(NamedTuple):
        """`best` int64 [B, T]: the likeliest id plus one, 0 before the first loop; `stable` [B, T]: loops in a row."""

        answer: Tensor
        best: Tensor
        stable: Tensor
        halted: Tensor
        depth: Tensor

    def start(self, h: Tensor, halted: Tensor) -> State:
        none = torch.zeros(halted.shape, dtype=torch.int64, device=halted.device)
        return self.State(h.clone(), none, zeros(h), halted, no_depth(halted))

    def compare(self, state: State, logits: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        chosen("best", logits, 1)
        best = tap(logits.argmax(-1, keepdim=True), "best").squeeze(-1) + 1
        stable = torch.where(best == state.best, state.stable + 1, 0)
        return stable, (best, stable.clone())

    def leaves(self, change: Tensor, threshold: Tensor) -> Tensor:
        return change >= threshold

    def margin(self, change: Tensor, threshold: Tensor, decided: Tensor) -> Tensor:
        """A count is exact: never nearer than one half."""
        return distance(change + 0.5, threshold, decided).clamp(min=0.5)

    def state(self, dim: int, first: str) -> tuple[StateTensor, ...]:
        answer = StateTensor("answer", "float32", (*FLAT, dim), first)
        best = StateTensor("best", "int64", FLAT, "zeros")
        return (answer, best, StateTensor("stable", "float32", FLAT, "zeros"), *HALTING)

    def trace(self, dim: int) -> tuple[TraceTensor, ...]:
        return (TraceTensor("best", "int64", (*FLAT, 1), "choice", until_halted=True), *super().trace(dim))
