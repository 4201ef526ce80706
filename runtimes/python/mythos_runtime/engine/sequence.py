"""A sequence as the engine sees it: what is cached of it at every depth, and what runs of it now.

Invariants, with N the limit of the sequence and `filled` never increasing:

    cache entries 0 .. filled[t]-1 are there at depth t
    a position p with filled[t] <= p < filled[t-1] has run exactly the depths 0 .. t-1, so one state of it is enough
    positions filled[N-1] .. length-1 have a state; the others have run everything, and their state is gone
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from mythos_runtime.engine.pages import Table

Policy = Literal["lazy", "full", "share"]
POLICIES: tuple[Policy, ...] = ("lazy", "full", "share")


@dataclass
class Job:
    """Positions first..last on their way through the loop.

    Attributes:
        depth: the depth whose rows are due.
        stop: depths to run at most; fewer than the sequence's limit for a draft.
        whole: run them at every depth, whether they have halted or not.
        answers: the layers behind the loop wait for them.
        due: the rows that run next, where that is known: nothing but a run of them changes it.
    """

    first: int
    last: int
    stop: int
    depth: int = 0
    whole: bool = False
    answers: bool = True
    due: Span | None = None


class Span(NamedTuple):
    """Rows of one sequence at one depth, positions first..last."""

    sequence: Sequence
    depth: int
    first: int
    last: int

    @property
    def rows(self) -> int:
        return self.last - self.first + 1


@dataclass(eq=False)
class Sequence:
    """Make one with `Core.open`.

    Attributes:
        limit: N, the most loops of its positions; fixed, as all of them have the same.
        threshold: where its positions halt, those that enter from now on.
        policy: what happens at the depths that a position did not run before it halted. lazy: they are run when a later
            position needs their entries. full: they are run at once. share: its deepest entry stands for them.
        state_seed: what its first states are drawn with, where the model draws them.
        capped: whether a position may have a cap below the limit.
        length: positions that have entered.
        filled: per depth, see above.
        answered: positions whose entries behind the loop are there.
        around, loop: tables of pages.
        lines: where the states of positions length - len(lines) .. length - 1 are.
    """

    limit: int
    threshold: float
    policy: Policy = "lazy"
    state_seed: int = 0
    capped: bool = False
    length: int = 0
    answered: int = 0
    job: Job | None = None
    around: Table = field(default_factory=Table)
    filled: list[int] = field(init=False)
    loop: list[Table] = field(init=False)
    lines: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.filled = [0] * self.limit
        self.loop = [Table() for _ in range(self.limit)]

    @property
    def complete(self) -> int:
        """Positions that have run every depth."""
        return self.filled[-1] if self.limit else self.length

    @property
    def lag(self) -> int:
        """Positions that have not."""
        return self.length - self.complete

    def states(self, first: int, last: int) -> list[int]:
        """The lines of positions first..last, which have one."""
        start = self.length - len(self.lines)
        return self.lines[first - start : last + 1 - start]


def lines_of(spans: Iterable[Span]) -> np.ndarray:
    """Where the states of all the spans' rows are, int64 [r]."""
    lines: list[int] = []
    for sequence, _, first, last in spans:
        lines += sequence.states(first, last)
    return np.array(lines, np.int64)
