"""An engine on a memory that others use beside it, and that grows with what requests need."""

from __future__ import annotations

import weakref

from mythos_runtime.engine.engine import Engine
from mythos_runtime.engine.memory import Room
from mythos_runtime.engine.request import Request, Running, Token, Usage, Work
from mythos_runtime.engine.row_cache import Pool
from mythos_runtime.engine.speculation import Speculate


class PooledEngine:
    """See `interface.AnyEngine`. Threads that have engines of their own on one pool take turns."""

    def __init__(self, pool: Pool, most_running: int, chunk: int, speculate: Speculate) -> None:
        self._pool = pool
        self._engine = Engine(pool.core, most_running, chunk, speculation=pool.speculation(speculate))
        self._asked: list[Work] = []

    @property
    def busy(self) -> bool:
        return self._engine.busy

    @property
    def usage(self) -> Usage:
        return self._engine.usage

    @property
    def pages_running(self) -> int:
        return self._engine.pages_running

    def submit(self, request: Request) -> Running:
        spec, positions = self._engine.spec, len(request.prompt) + request.max_new_tokens - 1
        limit = spec.trained_loops if request.max_loops is None else request.max_loops
        room = self._pool.claim(1, positions, limit, request.policy)
        weakref.finalize(self, self._pool.leave, room, [])
        running = self._engine.submit(request)
        assert isinstance(running, Work)
        self._asked.append(running)
        return running

    def cancel(self, running: Running) -> None:
        with self._pool.alone():
            self._engine.cancel(running)

    def tick(self) -> list[Token]:
        with self._pool.alone():
            return self._engine.tick()

    def close(self) -> None:
        """Give back what requests hold. For any thread, at any moment: the pool does it when it can."""
        self._pool.leave(Room(), [each.sequence for each in self._asked if each.sequence is not None])
