"""The choices of one HTTP request, as pieces."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from mythos_runtime.server.asking import Asked
from mythos_runtime.server.choice import Choice, Piece
from mythos_runtime.server.engine_loop import EngineLoop
from mythos_runtime.server.tickets import Accepted, Event, Failed, Ticket
from mythos_runtime.server.words import Words


class Generation:
    """Runs in an asyncio loop, which the engine's events reach by `deliver`. Close it, whatever happens."""

    def __init__(self, loop: EngineLoop, words: Words, asked: Asked, stops: Sequence[str], seconds: float) -> None:
        """`seconds`: from now until it is given up with TimeoutError.

        Raises:
            Overloaded, Closed: see `EngineLoop.submit`.
        """
        self._loop, self._asked = loop, asked
        self._deadline = asyncio.get_running_loop().time() + seconds
        self._events: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()
        self.choices = [Choice(index, words, stops) for index in range(len(asked.requests))]
        self._tickets = [
            Ticket(request, self._receiver(index), asked.logprobs) for index, request in enumerate(asked.requests)
        ]
        self._early: list[tuple[int, Event]] = []
        loop.submit(self._tickets)

    async def accepted(self) -> None:
        """Wait until the engine has taken every choice in. Raises what it says against one, and TimeoutError."""
        missing = len(self._tickets)
        while missing:
            index, event = await self._next()
            if isinstance(event, Failed):
                raise event.error
            if isinstance(event, Accepted):
                missing -= 1
            else:
                self._early.append((index, event))

    async def pieces(self) -> AsyncIterator[Piece]:
        """The pieces of all choices as they come. Raises what a choice failed of, and TimeoutError."""
        going = len(self.choices)
        while going:
            index, event = self._early.pop(0) if self._early else await self._next()
            choice = self.choices[index]
            if choice.done:
                continue
            if isinstance(event, Failed):
                raise event.error
            if isinstance(event, Accepted):
                continue
            piece = choice.feed(event)
            if choice.done:
                going -= 1
                self._loop.cancel([self._tickets[index]])  # at a stop text the engine does not know that it ended
            yield piece

    def close(self) -> None:
        """Whatever still runs is ended, and its memory free before the engine's next tick."""
        self._loop.cancel(self._tickets)

    @property
    def prompts(self) -> list[list[int]]:
        return self._asked.prompts

    async def _next(self) -> tuple[int, Event]:
        async with asyncio.timeout_at(self._deadline):
            return await self._events.get()

    def _receiver(self, index: int) -> Receiver:
        return Receiver(self._events, index)


class Receiver:
    """Takes one choice's events, in the thread of the asyncio loop."""

    def __init__(self, events: asyncio.Queue[tuple[int, Event]], index: int) -> None:
        self._events, self._index = events, index

    def __call__(self, event: Event) -> None:
        self._events.put_nowait((self._index, event))


def deliver_to(loop: asyncio.AbstractEventLoop, batch: Sequence[tuple[Ticket, Event]]) -> None:
    """Hand a tick's events to an asyncio loop; called in the engine's thread."""

    def hand_out() -> None:
        for ticket, event in batch:
            ticket.receive(event)

    loop.call_soon_threadsafe(hand_out)
