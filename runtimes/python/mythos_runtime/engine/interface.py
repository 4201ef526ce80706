"""What an engine is to those who use one, and what makes one on a loaded model, whoever runs it."""

from __future__ import annotations

from abc import abstractmethod
from typing import Protocol

import numpy as np

from mythos_runtime.batch import Chunk
from mythos_runtime.cache import Cache
from mythos_runtime.engine.options import EngineOptions
from mythos_runtime.engine.request import Request, Running, Token, Usage
from mythos_runtime.engine.sequence import POLICIES, Policy
from mythos_runtime.errors import RequestError
from mythos_runtime.row_ports import MOST_LOOPS
from mythos_runtime.spec import LoopSpec


class AnyEngine(Protocol):
    """`engine.Engine`, `pooled.PooledEngine` on a memory that grows, or `native.NativeEngine`: they give the same.

    Not for several threads."""

    @property
    def busy(self) -> bool:
        """Whether anything is left to do."""
        ...

    @property
    def usage(self) -> Usage:
        """What it holds, and what its calls came to."""
        ...

    @property
    def pages_running(self) -> int:
        """Pages that running requests hold, each once, whoever shares it. Looks at every table: not for each tick."""
        ...

    def submit(self, request: Request) -> Running:
        """Queue a request (RequestError, CapacityError)."""
        ...

    def cancel(self, running: Running) -> None:
        """End a request now; its memory is free at once."""
        ...

    def tick(self) -> list[Token]:
        """At most one call of each graph. The tokens that were chosen: where a call fails after that, they are told,
        and the next tick fails, unless one who was there then has ended."""
        ...

    def close(self) -> None:
        """End all requests, and give back what was kept."""
        ...


class RowsCache(Cache):
    """A cache of pages that row graphs append to. Positions that have halted lack the depths behind, until a later one
    needs them.

    Attributes:
        policy: lazy (exact), full (the same, with every depth run at once) or share (approximate): see
            `engine.sequence.Sequence`.
    """

    def __init__(self, batch: int, capacity: int, spec: LoopSpec, max_loops: int | None, policy: Policy) -> None:
        super().__init__(batch, capacity, spec, max_loops)
        if self.max_loops > MOST_LOOPS:
            raise RequestError(f"a cache holds at most {MOST_LOOPS} loop depths, found max_loops {self.max_loops}")
        if policy not in POLICIES:
            raise RequestError(f"there is no cache policy {policy!r}; the policies are {', '.join(POLICIES)}")
        self.policy = policy

    @abstractmethod
    def forward(
        self, tokens: Chunk, threshold: float, state_seed: int, initial: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, int]:
        """Append a batch of tokens.

        Args:
            threshold: where they halt.
            initial: float32 [B, T, S], their states before the first loop, of models that draw them; None: drawn.

        Returns: logits float32 [B, T, V] and depth int32 [B, T], zeros for padding; the loops that ran for them.
        """


class Rows(Protocol):
    """The row graphs of a loaded model, on a memory that grows with what its caches and engines need: `NativeModel` in
    the C++ runtime, `python_rows.PythonRows` in this package."""

    def engine(self, options: EngineOptions) -> AnyEngine:
        """An engine on this memory. Raises RequestError."""
        ...

    def new_cache(self, batch: int, capacity: int, max_loops: int | None, policy: Policy) -> RowsCache:
        """See `mythos_runtime.model.Model.new_cache`."""
        ...

    def made(self, cache: RowsCache) -> bool:
        """Whether a cache is in this memory."""
        ...
