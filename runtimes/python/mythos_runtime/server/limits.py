"""What a body may be, before anybody reads it whole."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mythos_runtime.server.refusals import Refusal

_SECONDS = 30.0  # for a body to come in


class BodyLimit:
    """ASGI middleware: a body of more than `most` bytes is refused with 413, one that does not come in with 408."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app, self._most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = Refusal(413, f"the body is larger than the {self._most} bytes that this server takes")
        headers = dict(scope["headers"])
        if int(headers.get(b"content-length", b"0")) > self._most:  # the HTTP parser has checked that it is a number
            await refusal.response()(scope, receive, send)
            return
        read, complete = 0, False
        deadline = asyncio.get_running_loop().time() + _SECONDS

        async def limited() -> Message:
            nonlocal read, complete
            if complete:
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise Refusal(408, f"the body did not come within {_SECONDS:g} s") from None
            read += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if read > self._most:
                raise refusal
            return message

        await self._app(scope, limited, send)
