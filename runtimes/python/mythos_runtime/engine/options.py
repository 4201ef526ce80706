"""How an engine is to serve: the one description of it, for whoever runs it."""

from __future__ import annotations

from dataclasses import dataclass

from mythos_runtime.engine.request import Budget
from mythos_runtime.engine.speculation import Speculate

DEFAULT_MEMORY = 1 << 30
CHUNK, MAX_LAG = 64, 64
MOST_ROWS = 256


@dataclass(frozen=True)
class EngineOptions:
    """What `open_engine` and `Model.engine` take.

    Attributes:
        memory: bytes for pages of the caches and the states of positions that lag, which the system gives as they are
            touched. There are states for `max_lag` and a chunk of every sequence that runs or is kept; where that is
            not enough (`max_lag` None bounds nothing), a request that finds none first catches up on its lagging
            positions. Of an engine on a loaded model, whose memory grows with what is asked for, it says nothing, and
            nor do max_loops, most_rows and max_lag; prefixes has to be 0 there, since what is kept would be nobody's.
        max_loops: the most that a request may ask for; None: as trained.
        most_rows: of a call.
        most_running: requests that run at a time; the others wait, in the order they came.
        chunk: the most tokens of a prompt that enter at a time.
        patience, loops_per_call, prefixes: see `engine.Engine`.
        max_lag: see `Core`.
        budget: of requests that have none of their own.
        speculate: "auto", "off", or the loops after which a draft is taken.
    """

    memory: int = DEFAULT_MEMORY
    max_loops: int | None = None
    most_rows: int = MOST_ROWS
    most_running: int = 64
    chunk: int = CHUNK
    patience: float | None = None
    loops_per_call: int | None = None
    max_lag: int | None = MAX_LAG
    budget: Budget | None = None
    prefixes: int = 0
    speculate: Speculate = "off"

    @property
    def lagging(self) -> int:
        """Positions that may lag at a time."""
        each = (MAX_LAG if self.max_lag is None else self.max_lag) + min(self.chunk, self.most_rows)
        return (self.most_running + self.prefixes) * each
