"""What goes into the core, and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mythos_runtime.engine.sequence import Sequence


@dataclass(frozen=True)
class Chunk:
    """New tokens of a sequence.

    Attributes:
        ids: int64 [n].
        answers: whether somebody wants their logits. Without, they are run when a later position needs them (with
            layers behind the loop, which need every position's answer, at once).
        caps: the loop with which each halts at the latest, int32 [n] of 1 or more.
        forced: bool [n], which do not halt before.
        depths: run no more of them: a draft, whose answer is an early one. None: as many as are needed.
        initial: float32 [n, S], the state before the first loop, of models that draw it.
    """

    sequence: Sequence
    ids: np.ndarray
    answers: bool = True
    caps: np.ndarray | None = None
    forced: np.ndarray | None = None
    depths: int | None = None
    initial: np.ndarray | None = None

    @property
    def first(self) -> int:
        return self.sequence.length


@dataclass(frozen=True)
class Leaving:
    """A sequence whose job is through, and what is wanted of it.

    Attributes:
        every: the answers of all its positions, not only of the last.
        early: as if their last loop had been their last: of a draft (`Chunk.depths`). What the layers behind the loop
            cache then is not what they will leave with: the same positions have to be run on (`Core.resume`), and to
            leave, or to be forgotten.
    """

    sequence: Sequence
    every: bool = False
    early: bool = False


@dataclass(frozen=True)
class Answer:
    """What a chunk's positions came to: logits [V] and depth of the last one, or [n, V] and [n] of all."""

    logits: np.ndarray
    depth: np.ndarray
