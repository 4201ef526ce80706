"""An engine on a memory that others use beside it, and that grows with what requests need."""

from __future__ import annotations

import weakref

from mythos_runtime.engine.admission import check, check_length
from mythos_runtime.engine.engine import Engine
from mythos_runtime.engine.memory import Room
from mythos_runtime.engine.options import EngineOptions
from mythos_runtime.engine.request import CANCELLED, Request, Running, Token, Usage, Work
from mythos_runtime.engine.row_cache import Pool
from mythos_runtime.errors import RequestError


class PooledEngine:
    """See `interface.AnyEngine`. Threads that have engines of their own on one pool take turns."""

    def __init__(self, pool: Pool, options: EngineOptions) -> None:
        if options.prefixes:
            raise RequestError("an engine on a loaded model keeps nothing of ended requests: prefixes should be 0")
        self._pool = pool
        self._engine = Engine(
            pool.core,
            options.most_running,
            options.chunk,
            options.patience,
            loops_per_call=options.loops_per_call,
            budget=options.budget,
            speculation=pool.speculation(options.speculate),
        )
        self._claims: dict[Work, Room] = {}  # of those that have not ended
        self._closed = False
        weakref.finalize(self, _leave, pool, self._claims)

    @property
    def busy(self) -> bool:
        return not self._closed and self._engine.busy

    @property
    def usage(self) -> Usage:
        self._check_open()
        with self._pool.alone():
            return self._engine.usage

    @property
    def pages_running(self) -> int:
        self._check_open()
        with self._pool.alone():
            return self._engine.pages_running

    def submit(self, request: Request) -> Running:
        self._check_open()
        limit = check(request, self._engine.spec, self._engine.budget).limit
        room = self._pool.claim(1, check_length(request, self._engine.spec), limit, request.policy)
        with self._pool.alone():
            running = self._engine.submit(request)
        assert isinstance(running, Work)
        self._claims[running] = room
        return running

    def cancel(self, running: Running) -> None:
        with self._pool.alone():
            self._engine.cancel(running)
            self._release()

    def tick(self) -> list[Token]:
        self._check_open()
        with self._pool.alone():
            tokens = self._engine.tick()
            self._release()
        return tokens

    def close(self) -> None:
        """End all requests. For any thread, at any moment: the pool gives their memory back when it can."""
        self._closed = True
        for work in self._claims:
            work.finished = work.finished or CANCELLED
        _leave(self._pool, self._claims)

    def _release(self) -> None:
        """Give back what ended requests have claimed."""
        for work in [work for work in self._claims if work.finished is not None]:
            self._pool.leave(self._claims.pop(work), [])

    def _check_open(self) -> None:
        if self._closed:
            raise RequestError("this engine was closed; open it again")


def _leave(pool: Pool, claims: dict[Work, Room]) -> None:
    """Give back what requests have claimed, and what they hold."""
    while claims:
        work, room = claims.popitem()
        pool.leave(room, [] if work.sequence is None else [work.sequence])
