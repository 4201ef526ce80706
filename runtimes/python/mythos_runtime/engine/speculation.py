"""Self-speculation: a looped model is its own draft, and drafting wastes nothing.

A token is drafted from the state after a few loops. That state, and what the loop cached of it, is what the whole run
passes through anyway. So verifying the drafts is running the same rows on, as one packed chunk; a wrong draft is a
truncation. The answers are those without speculation, to the bit: a draft is drawn with the very random number that its
position's token will be drawn with, and kept where the two choices agree.

How deep drafts are taken, and how many, is chosen by what it should bring: from the share of drafts that was right at
each depth, and from what calls of the graphs have taken lately. Only the speed depends on that.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Literal

from mythos_runtime.batch import integer
from mythos_runtime.row_ports import ENTER, LEAVE, MOST_LOOPS, STEP

Speculate = Literal["auto", "off"] | int
MOST_DRAFTS = 8
_FORGET = 0.97  # of what was counted, with each new count
_PEEK = 128  # rounds between two that try another depth
_KEEP = 16  # rounds that a choice holds for: to weigh all of them takes as long as a call of a small model
_SPREAD = 0.05  # of a call of one row, what another row costs, as long as nothing was measured


@dataclass
class Line:
    """Seconds of a call by its rows: a straight line through what was measured lately."""

    weight: float = 0.0
    rows: float = 0.0
    seconds: float = 0.0
    squares: float = 0.0
    products: float = 0.0

    def add(self, rows: int, seconds: float, times: int = 1) -> None:
        """So many calls that were alike."""
        kept = _FORGET**times
        new = (1 - kept) / (1 - _FORGET)
        self.weight = kept * self.weight + new
        self.rows = kept * self.rows + new * rows
        self.seconds = kept * self.seconds + new * seconds
        self.squares = kept * self.squares + new * rows * rows
        self.products = kept * self.products + new * rows * seconds

    def fit(self) -> tuple[float, float]:
        """Seconds of a call, and of each row in it."""
        if not self.weight:
            return 0.0, 0.0
        mean, seconds = self.rows / self.weight, self.seconds / self.weight
        spread = self.squares / self.weight - mean * mean
        slope = seconds * _SPREAD / max(mean, 1.0)
        if spread > 0.05:
            slope = max((self.products / self.weight - mean * seconds) / spread, 0.0)
        return max(seconds - slope * mean, 0.0), slope


@dataclass
class Speed:
    """What calls of the graphs take: by graph, seconds against rows."""

    lines: dict[str, Line] = field(default_factory=lambda: {name: Line() for name in (ENTER, STEP, LEAVE)})

    def saw(self, graph: str, rows: int, started: float, calls: int = 1) -> None:
        """Calls of so many rows together have taken the time since `started` (time.perf_counter)."""
        if rows:
            self.lines[graph].add(rows // calls, (time.perf_counter() - started) / calls, calls)

    def of_call(self, graph: str) -> float:
        """Seconds of a call, whatever its rows."""
        return self.lines[graph].fit()[0]

    def of(self, graph: str, rows: float, sharing: int = 1) -> float:
        """Seconds that a sequence has to answer for, whose rows are in a call with `sharing` - 1 others like it."""
        call, row = self.lines[graph].fit()
        return call / sharing + row * rows

    def per_token(self, loops: float, sharing: int = 1) -> float:
        """Seconds of a token of so many loops, one row in each call."""
        return self.of(ENTER, 1, sharing) + loops * self.of(STEP, 1, sharing) + self.of(LEAVE, 1, sharing)


class Speculation:
    """Chooses how to draft.

    Attributes:
        speed: what calls took lately.
        drafted, accepted: drafts so far, and those that were right.
        rounds: of drafting. tokens: that they gave.
    """

    def __init__(self, loops: int, fixed: int | None = None, most: int = MOST_DRAFTS) -> None:
        """
        Args:
            loops: as trained. fixed: draft after so many, always.
            most: drafts of a round.

        Raises:
            RequestError: `fixed` is no number of loops.
        """
        if fixed is not None:
            integer(fixed, "speculate", 1, MOST_LOOPS)
        self.speed, self._most, self._fixed = Speed(), most, fixed
        self.depths = [fixed] if fixed is not None else sorted({1, 2, 3, loops // 2} & set(range(1, loops)))
        self._right = {depth: 0.0 for depth in self.depths}
        self._tried = {depth: 0.0 for depth in self.depths}
        self._loops, self._deepest = float(loops), float(loops)
        self._turn = 0
        self._held: tuple[int, int] | None = None
        self.drafted = self.accepted = self.rounds = self.tokens = 0

    def choose(self, running: int, room: int) -> tuple[int, int]:
        """Depth and number of the next round's drafts; number 0: none pay.

        Args:
            running: sequences that share the calls.
            room: the most drafts that there is use for.
        """
        most = min(self._most, room)
        if most < 1 or not self.depths:
            return 0, 0
        self._turn += 1
        untried = [depth for depth in self.depths if self._tried[depth] < 1.0]
        if untried and self._turn > 2:  # the first tokens measure the calls
            return untried[0], min(2, most)
        if not untried and self._turn % _PEEK == 0:
            return self.depths[self._turn // _PEEK % len(self.depths)], 1
        if self._held and self._turn % _KEEP and self._fixed is None:
            depth, count = self._held
            return (depth, min(count, most)) if count else self._held
        best, chosen = 1 / max(self.speed.per_token(self._loops, running), 1e-9), (0, 0)
        for depth in self.depths:
            if untried and self._fixed is None:
                break
            for count in range(1, most + 1):
                gain = self._tokens(depth, count) / max(self._seconds(depth, count, running), 1e-9)
                if gain > best or (self._fixed is not None and chosen == (0, 0)):
                    best, chosen = gain, (depth, count)
        if not untried:
            self._held = chosen
        return chosen

    def saw(self, depth: int, drafts: int, right: int, deepest: int) -> None:
        """A round's outcome: of its drafts the first `right` were, and its positions took at most `deepest` loops."""
        judged = min(right + 1, drafts)
        self._right[depth] = _FORGET**judged * self._right[depth] + right
        self._tried[depth] = _FORGET**judged * self._tried[depth] + judged
        self._deepest += (deepest - self._deepest) * (1 - _FORGET)
        self.rounds, self.tokens = self.rounds + 1, self.tokens + right + 1
        self.drafted, self.accepted = self.drafted + drafts, self.accepted + right

    def went(self, loops: int) -> None:
        """The loops of a token."""
        self._loops += (loops - self._loops) * (1 - _FORGET)

    def _tokens(self, depth: int, count: int) -> float:
        """That a round should give: each draft is right with the same probability, where those before it are."""
        right = (self._right[depth] + 0.5) / (self._tried[depth] + 1)
        return sum(right**i for i in range(count + 1))

    def _seconds(self, depth: int, count: int, running: int) -> float:
        """That a round should take."""
        speed = self.speed
        shallow = min(float(depth), self._loops)
        drafts = count * (speed.of(STEP, 1, running) * shallow + speed.of(LEAVE, 1, running))
        first = (count + 1) * speed.of(ENTER, 1, running) + shallow * speed.of(STEP, 1, running)
        rest = max(max(self._deepest, self._loops) - depth, 0.0) * speed.of(STEP, count + 1, running)
        return drafts + first + rest + speed.of(LEAVE, count + 1, running)
