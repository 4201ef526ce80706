"""What goes through a looped model: the tensors of a call, of the cache, of the loop and around it.

Legend: as in `looped`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor, nn

from mythos_model.attention import Past
from mythos_model.taps import tap


class Output(NamedTuple):
    """What one call computes.

    Attributes:
        logits: [B, T, V], float32 (float64 in a float64 model).
        depth: int32 [B, T], loops that contributed to a position; 0 for padding.
        loops: int64 [], iterations run.
        new: cache entries of the new tokens by group: `layers` [L, B, T, C], `loop` [N, B, T, C], or with
            several slots [N, K, B, T, C]. Depths that did not run repeat the deepest that did.
    """

    logits: Tensor
    depth: Tensor
    loops: Tensor
    new: dict[str, Tensor]


class Call(NamedTuple):
    """What a call asks for, beside its tokens; see `LoopedModel.forward`."""

    positions: Tensor
    past_lengths: Tensor
    max_loops: Tensor
    halt_threshold: Tensor
    early_exit: Tensor
    past: Mapping[str, Tensor]
    initial: Tensor | None = None


class Check(NamedTuple):
    """Something that has to hold of the weights: `value` below `bound`, or else what `meaning` says."""

    name: str
    value: float
    bound: float
    meaning: str


@dataclass
class Lines:
    """The cache lines that the layers of one part read, one after the other, and what they add.

    Attributes:
        stored: [lines, B, S, C].
        first: int64 [], the line of the first layer.
        shown: what verification calls the new entries; None where it does not look.
        chunks: [B, T, C] of every layer so far.
    """

    stored: Tensor
    first: Tensor
    shown: str | None = None
    chunks: list[Tensor] = field(default_factory=list)

    def attend(self, attention: nn.Module, x: Tensor, past: Past, *also: Tensor) -> Tensor:
        """Run a layer's attention on its own line: x [B, T, D] -> [B, T, D]. It is given what else there is, too."""
        index = len(self.chunks)
        y, chunk = attention(x, past, self.stored, self.first + index if index else self.first, *also)
        if self.shown is not None:
            chunk = tap(chunk, self.shown if index == 0 and self.shown[-1] != "." else f"{self.shown}{index}")
        self.chunks.append(chunk)
        return y  # type: ignore[no-any-return]


class Carry(NamedTuple):
    """What one iteration hands to the next; every field is a tensor or a tuple of them.

    Attributes:
        iteration: int64 [], iterations run so far. A tensor and an output, so that a runtime that runs one too many is
            caught.
        h: [B, T, D], the state, float32 (float64 in a float64 model) at every precision.
        exit: the exit rule's own state.
        running: bool [], whether any position has not halted.
        new_loop: [N, B, T, C], or [N, K, B, T, C] with several slots per loop: the chunk's entries of every depth.
    """

    iteration: Tensor
    h: Tensor
    exit: Any
    running: Tensor
    new_loop: Tensor


class Context(NamedTuple):
    """What stays the same over the iterations.

    Attributes:
        encoded: [B, T, D], what stands before the loop, in the state's dtype.
        own: whatever the family prepares (`LoopedModel.prepare`).
        past: positions, lengths and rotary angles.
        around: [L, B, S, C], the cache of the layers around the loop.
        stored: [N*K, B, S, C], the cache of every depth, and N, the depths.
        limit: int64 [], the most iterations to run.
        halt_threshold: [], of the exit rule.
        every_loop: bool [], run up to the limit, whoever has halted.
        initial: [B, T, D], the state that was drawn, where one is.
    """

    encoded: Tensor
    own: Any
    past: Past
    around: Tensor
    stored: Tensor
    depths: int
    limit: Tensor
    halt_threshold: Tensor
    every_loop: Tensor
    initial: Tensor | None = None


@dataclass(frozen=True)
class Sizes:
    """The numbers of a model that its runtime needs.

    Attributes:
        vocabulary: V. dim: D, width of the state. line: C, width of a cache line.
        longest: most positions of a sequence. most_output: most new tokens of a generation.
        loops: the number of loops that it was trained with.
    """

    vocabulary: int
    dim: int
    line: int
    longest: int
    most_output: int
    loops: int
