"""What an engine is to those who use one, whoever runs it."""

from __future__ import annotations

from typing import Protocol

from mythos_runtime.engine.request import Request, Running, Token, Usage


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
        """At most one call of each graph. The tokens that were chosen."""
        ...

    def close(self) -> None:
        """End all requests, and give back what was kept."""
        ...
