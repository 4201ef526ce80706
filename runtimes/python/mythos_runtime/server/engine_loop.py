"""The thread that owns the engine. Requests come to it through a queue, and what became of them goes out in batches.

    loop = EngineLoop(engine, reopen, deliver)
    loop.start()
    loop.submit([ticket])          # from any thread; `deliver` is called with the ticket's events, in this one
    loop.cancel([ticket])
    loop.close()                   # ends what still runs

A tick that fails is nobody's fault at first: the engine is opened anew, and whoever was in it is computed again, in
ever smaller company, until the one whose tick fails alone is found. It gets the error, and the others go on as if
nothing had been, since a request's tokens depend on the request alone.
"""

from __future__ import annotations

import gc
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from traceback import clear_frames

from mythos_runtime.engine import AnyEngine, Running, Token
from mythos_runtime.engine.request import ERROR, Usage
from mythos_runtime.errors import BackendFailed, ResultError
from mythos_runtime.server.logprobs import token_logprobs
from mythos_runtime.server.tickets import Accepted, Chosen, Closed, Event, Failed, Observer, Overloaded, Ticket

log = logging.getLogger("mythos_runtime.server")
_COUNT_SECONDS = 0.5  # between two counts of the pages of running requests, which look at every table


@dataclass(frozen=True)
class Stats(Usage):
    """The engine between two ticks; what its calls came to counts from when it was first opened.

    Attributes:
        waiting: requests, those among them that the engine was not given yet.
        pages_running: that running requests hold, as of the last half second; what else is held is kept of ended ones
            and goes as soon as somebody needs it.
        reused: prompt tokens that were found in what is kept.
        restarts: engines opened anew after a tick that failed.
    """

    pages_running: int = 0
    reused: int = 0
    restarts: int = 0


_COUNTED = ("steps", "rows", "late", "drafted", "accepted")  # from when the first engine was opened


class EngineLoop:
    """See the module's docstring.

    Attributes:
        most: requests that may be in it at a time, running or waiting.
        stats: as of the last tick.
        failure: what ended the thread, should anything have.
    """

    def __init__(
        self,
        engine: AnyEngine,
        reopen: Callable[[], AnyEngine],
        deliver: Callable[[Sequence[tuple[Ticket, Event]]], None],
        most: int,
        observer: Observer | None = None,
    ) -> None:
        self.most, self.stats = most, Stats()
        self.failure: BaseException | None = None
        self._engine, self._reopen, self._deliver, self._observer = engine, reopen, deliver, observer
        self._inbox: queue.SimpleQueue[tuple[str, Ticket] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._load, self._closed = 0, False
        self._seconds = 1.0  # that a request takes, a running mean
        self._tickets: dict[Running, Ticket] = {}
        self._suspects: deque[list[Ticket]] = deque()  # groups to be tried again, each by itself
        self._waiting: list[Ticket] = []  # came while suspects are tried
        self._outbox: list[tuple[Ticket, Event]] = []
        self._before = Stats()  # of engines that failed
        self._reused = 0
        self._pages_running, self._counted = 0, 0.0
        self._thread = threading.Thread(target=self._work, name="mythos-engine", daemon=True)

    # -- from any thread ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()

    def submit(self, tickets: Sequence[Ticket]) -> None:
        """Take requests in, all or none.

        Raises:
            Overloaded: there are too many.
            Closed: the loop was closed, or its thread has ended.
        """
        with self._lock:
            if self._closed or self.failure is not None:
                raise Closed("the engine has stopped")
            if self._load + len(tickets) > self.most:
                raise Overloaded(self._retry_after())
            self._load += len(tickets)
            for ticket in tickets:
                self._inbox.put(("submit", ticket))

    def cancel(self, tickets: Sequence[Ticket]) -> None:
        """End requests before the next tick; those that have ended are left alone. No event of them comes after it."""
        for ticket in tickets:
            if not ticket.ended:
                self._inbox.put(("cancel", ticket))

    @property
    def load(self) -> int:
        """Requests in it."""
        return self._load

    @property
    def alive(self) -> bool:
        return self._thread.is_alive() and self.failure is None

    def close(self, timeout: float = 60.0) -> None:
        """End what still runs with an error, and the thread."""
        with self._lock:
            self._closed = True
        self._inbox.put(None)
        if self._thread.ident is not None:
            self._thread.join(timeout)

    def _retry_after(self) -> int:
        """Seconds until one of the running is likely to have ended."""
        return max(1, min(60, round(self._seconds / max(self.stats.running, 1))))

    # -- in the engine's thread ---------------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            while self._take():
                self._advance()
                self._send()
            error: Exception = Closed("the server was stopped")
        except BaseException as failure:  # a defect of this loop: nobody may wait for what will never come
            log.critical("the engine's thread has ended", exc_info=failure)
            with self._lock:
                self.failure = failure
            error = BackendFailed(f"the engine has stopped: {failure}")
        self._fail_all(error)

    def _take(self) -> bool:
        """What has come since the last tick; where there is nothing to do, wait for it. False: close."""
        wait = not self._engine.busy and not self._suspects and not self._waiting
        while True:
            try:
                message = self._inbox.get(block=wait)
            except queue.Empty:
                return True
            wait = False
            if message is None:
                return False
            verb, ticket = message
            if verb == "cancel":
                self._cancel(ticket)
            elif self._suspects or self._waiting:
                self._waiting.append(ticket)
            else:
                self._enter(ticket)

    def _enter(self, ticket: Ticket) -> None:
        if ticket.ended:
            return
        again = ticket.running is not None
        try:
            # What a budget allowed hung on the clock: it is set again as it was.
            request = replace(ticket.request, depths=tuple(ticket.depths)) if ticket.depths else ticket.request
            running = self._engine.submit(request)
        except Exception as error:  # a refusal, or a defect that only this request shows
            self._end(ticket, Failed(error))
            return
        ticket.running, ticket.seen = running, 0
        self._tickets[running] = ticket
        if not again:
            self._outbox.append((ticket, Accepted()))

    def _cancel(self, ticket: Ticket) -> None:
        if ticket.ended:
            return
        if ticket.running is not None and ticket.running in self._tickets:
            self._engine.cancel(ticket.running)
        self._end(ticket, None, "cancelled")

    def _advance(self) -> None:
        if self._suspects and not self._tickets:
            for ticket in self._suspects.popleft():
                self._enter(ticket)
        if self._engine.busy:
            tokens = self._tick()
            if tokens is None:
                return
            self._report(tokens)
        if self._waiting and not self._suspects and not self._tickets:
            waiting, self._waiting = self._waiting, []
            for ticket in waiting:
                self._enter(ticket)
        self._publish()

    def _tick(self) -> Sequence[Token] | None:
        """The tokens of a tick; None where it failed, and the engine was opened anew."""
        try:
            return self._engine.tick()
        except Exception as error:
            failure = error
        self._recover(failure)  # outside of the handler, which would hold the frames that the engine is in
        return None

    def _report(self, tokens: Sequence[Token]) -> None:
        now = time.perf_counter()
        for token in tokens:
            running = token.running
            ticket = self._tickets.get(running)
            if ticket is None:
                continue
            ticket.seen += 1
            if ticket.seen <= ticket.sent:
                continue  # known from before the engine was opened anew
            ticket.sent = ticket.seen
            if self._observer is not None:
                self._observer.token(ticket, token.depth, now)
            ticket.last = now
            if ticket.request.budget:
                ticket.depths.append(token.depth)
            if ticket.sent == 1:
                self._reused += running.reused
            # A request may fail in the very tick that gave it a token: its answer is not whole then.
            ended = ticket.seen == len(running.tokens) and running.finished != ERROR
            finished = running.finished if ended else None
            known = None if ticket.logprobs is None else token_logprobs(token.logits, token.id, ticket.logprobs)
            event = Chosen(token.id, token.depth, known, finished, running.reused)
            if finished is None:
                self._outbox.append((ticket, event))
            else:
                self._end(ticket, event, finished)
        for running in [running for running in self._tickets if running.finished is not None]:
            self._end(self._tickets[running], Failed(running.error or ResultError("the request ended without a word")))

    def _recover(self, error: Exception) -> None:
        """Open the engine anew, and leave who was in it to be tried again; one who was alone in it has failed."""
        tried = list(self._tickets.values())
        log.error("a tick over %d requests failed: %s; the engine is opened anew", len(tried), error, exc_info=error)
        if len(tried) > 1:
            half = len(tried) // 2
            self._suspects.extendleft([tried[half:], tried[:half]])
        self._tickets.clear()
        if len(tried) == 1:
            self._end(tried[0], Failed(error))
        self._publish()
        self._before = replace(self.stats, restarts=self.stats.restarts + 1)
        self._release(error)
        self._engine = self._reopen()
        self._publish()

    def _release(self, error: BaseException) -> None:
        """Let go of the engine, so that its memory is free for the next one: its own references, the frames in which
        the error was raised, and what holds itself in a circle."""
        del self._engine
        seen: BaseException | None = error
        while seen is not None:
            clear_frames(seen.__traceback__)
            seen = seen.__cause__ or seen.__context__
        gc.collect()

    # -- ends ---------------------------------------------------------------------------------------------------------

    def _end(self, ticket: Ticket, event: Event | None, reason: str = "error") -> None:
        now = time.perf_counter()
        ticket.ended = True
        if ticket.running is not None:
            self._tickets.pop(ticket.running, None)
            self._seconds += 0.1 * (now - ticket.arrived - self._seconds)
        if event is not None:
            self._outbox.append((ticket, event))
        if self._observer is not None:
            self._observer.ended(ticket, reason, now)
        with self._lock:
            self._load -= 1

    def _fail_all(self, error: Exception) -> None:
        with self._lock:
            self._closed = True
        left = [*self._tickets.values(), *self._waiting, *(each for group in self._suspects for each in group)]
        while not self._inbox.empty():
            message = self._inbox.get()
            if message is not None and message[0] == "submit":
                left.append(message[1])
        for ticket in left:
            if not ticket.ended:
                self._end(ticket, Failed(error))
        self._send()

    def _send(self) -> None:
        if self._outbox:
            batch, self._outbox = self._outbox, []
            self._deliver(batch)

    def _publish(self) -> None:
        usage, before, now = self._engine.usage, self._before, time.perf_counter()
        if now > self._counted + _COUNT_SECONDS or not usage.running:
            self._pages_running, self._counted = self._engine.pages_running, now
        counted = {name: getattr(before, name) + getattr(usage, name) for name in _COUNTED}
        self.stats = Stats(
            **vars(replace(usage, waiting=self._load - usage.running, **counted)),
            pages_running=self._pages_running,
            reused=self._reused,
            restarts=before.restarts,
        )
