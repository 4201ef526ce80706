"""What goes into the engine's thread and comes out of it: a request's ticket, and what becomes of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from mythos_runtime.engine import Request, Running
from mythos_runtime.server.logprobs import TokenLogprobs


@dataclass(frozen=True)
class Accepted:
    """The engine has taken the request."""


@dataclass(frozen=True)
class Chosen:
    """A token, its depth, and why the request ended with it (None: it goes on).

    `reused`: tokens of the prompt whose cache entries were there already.
    """

    token: int
    depth: int
    logprobs: TokenLogprobs | None
    finished: str | None
    reused: int = 0


@dataclass(frozen=True)
class Failed:
    """The request ended without an answer: RequestError where it was refused, what else happened otherwise."""

    error: Exception


Event = Accepted | Chosen | Failed


class Overloaded(Exception):
    """There are as many requests as may wait. Try again after `seconds`."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"the queue is full; try again in {seconds} s")
        self.seconds = seconds


class Closed(Exception):
    """The loop takes no requests any more."""


@dataclass(eq=False)
class Ticket:
    """A request on its way through the loop.

    Attributes:
        receive: called with each event in the thread that `deliver` leads to.
        logprobs: None, or how many alternatives of each token are wanted.
        arrived: time.perf_counter() when it was made.
        sent: tokens that were delivered. seen: tokens of the engine's present attempt at it.
        depths: of the tokens that were delivered, where a budget has set them.
        last: when its last token came.
    """

    request: Request
    receive: Callable[[Event], None]
    logprobs: int | None = None
    arrived: float = field(default_factory=time.perf_counter)
    running: Running | None = None
    sent: int = 0
    seen: int = 0
    depths: list[int] = field(default_factory=list)
    last: float = 0.0
    ended: bool = False


class Observer(Protocol):
    """What wants to know of every token; called in the engine's thread."""

    def token(self, ticket: Ticket, depth: int, now: float) -> None: ...

    def ended(self, ticket: Ticket, reason: str, now: float) -> None: ...
