"""A generation as an HTTP response: whole, or a stream of server-sent events. A client that leaves ends it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from fastapi import Request, Response
from sse_starlette import EventSourceResponse, ServerSentEvent
from sse_starlette.sse import SendTimeoutError
from starlette.types import Receive, Scope, Send

from mythos_runtime.server.forms import Form, usage_of
from mythos_runtime.server.generation import Generation
from mythos_runtime.server.refusals import refusal_of

log = logging.getLogger("mythos_runtime.server")

_DONE = "[DONE]"
_CLIENT_LEFT = 499  # nobody reads it; it stands in the access log
_SEND_SECONDS = 60.0  # that a client may take to read what was sent before


async def whole(http: Request, generation: Generation, form: Form) -> Response:
    """Every choice at once. Raises what the generation raises."""

    async def collect() -> Response:
        async for _ in generation.pieces():
            pass
        pieces = [choice.whole for choice in generation.choices]
        return Response(form.whole(pieces, usage_of(generation.prompts, pieces)), media_type="application/json")

    try:
        answer = await _unless_gone(http, collect())
        return Response(status_code=_CLIENT_LEFT) if answer is None else answer
    finally:
        generation.close()


async def _unless_gone(http: Request, work: Coroutine[Any, Any, Response]) -> Response | None:
    """The result of the work; None where the client left before."""

    async def gone() -> None:
        while (await http.receive())["type"] != "http.disconnect":
            pass

    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        working.cancel()
        leaving.cancel()


class Stream(EventSourceResponse):
    """The choices' pieces as they come, mixed; an error on the way is the last event."""

    def __init__(self, generation: Generation, form: Form) -> None:
        self._generation = generation
        super().__init__(self._events(form), sep="\n", send_timeout=_SEND_SECONDS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except SendTimeoutError:
            log.info("a client that did not read for %g s was left", _SEND_SECONDS)
        finally:
            self._generation.close()

    async def _events(self, form: Form) -> AsyncIterator[ServerSentEvent]:
        generation = self._generation
        try:
            for choice in generation.choices:
                opening = form.opening(choice.index)
                if opening is not None:
                    yield _event(opening)
            async for piece in generation.pieces():
                if form.shows(piece):
                    yield _event(form.chunk(piece))
            last = form.last(usage_of(generation.prompts, [choice.whole for choice in generation.choices]))
            if last is not None:
                yield _event(last)
        except Exception as error:  # the status has gone out: say it in the stream, as the protocol does
            yield _event(refusal_of(error).body().model_dump_json())
            return
        yield _event(_DONE)


def _event(data: str) -> ServerSentEvent:
    return ServerSentEvent(data, sep="\n")
