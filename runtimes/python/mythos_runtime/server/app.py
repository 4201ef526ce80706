"""The server as an ASGI app.

app = make_app(Served.open("bundle", settings))
uvicorn.run(app)                    # or any other server; `mythos serve` is this with options
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib import resources
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.concurrency import run_in_threadpool
from starlette.middleware.trustedhost import TrustedHostMiddleware

import mythos_runtime
from mythos_runtime.fields import shown
from mythos_runtime.server import answering, refusals
from mythos_runtime.server.asking import Asked
from mythos_runtime.server.auth import key_check
from mythos_runtime.server.engine_loop import EngineLoop
from mythos_runtime.server.forms import ChatForm, CompletionForm, Form
from mythos_runtime.server.generation import Generation, deliver_to
from mythos_runtime.server.limits import BodyLimit
from mythos_runtime.server.metrics import Metrics
from mythos_runtime.server.refusals import Refusal
from mythos_runtime.server.schemas import (
    ChatCompletion,
    ChatRequest,
    Completion,
    CompletionRequest,
    ErrorBody,
    ModelCard,
    ModelList,
    Status,
    TokenizeChat,
    TokenizeText,
    Tokens,
)
from mythos_runtime.server.served import Served

log = logging.getLogger("mythos_runtime.server")

_PAGE_POLICY = (
    "default-src 'none'; connect-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_ERRORS: dict[int | str, dict[str, Any]] = {"4XX": {"model": ErrorBody}, "5XX": {"model": ErrorBody}}
_STREAM: dict[str, Any] = {"content": {"text/event-stream": {}}}


def make_app(served: Served) -> FastAPI:
    """The app over a bundle that was opened. It runs the engine while its lifespan lasts, once."""
    metrics = Metrics(served.settings.most_loops)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        settings = served.settings
        deliver = functools.partial(deliver_to, asyncio.get_running_loop())
        most = settings.most_running + settings.most_queued
        loop = EngineLoop(served.take_engine(), served.reopen, deliver, most, metrics)
        metrics.follow(lambda: loop.stats, served.shards)
        loop.start()
        app.state.loop = loop
        yield
        await run_in_threadpool(loop.close)
        if served.shards is not None:
            await run_in_threadpool(served.shards.close)

    app = FastAPI(
        title="mythos",
        version=mythos_runtime.__version__,
        description="Looped transformers behind the OpenAI protocol.",
        lifespan=lifespan,
        docs_url=None,  # they load scripts from elsewhere
        redoc_url=None,
    )
    app.state.served = served
    refusals.install(app)
    app.add_middleware(BodyLimit, most=served.settings.most_body)
    if served.settings.hosts:  # a page of another name that leads here reaches nothing
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(served.settings.hosts))
    keys = served.settings.keys
    app.include_router(_generating(served), dependencies=[Depends(key_check(keys))] if keys else [])
    app.include_router(_watching(metrics))
    return app


def _generating(served: Served) -> APIRouter:
    """What needs a key."""
    routes = APIRouter(responses=_ERRORS)
    asker, words, settings = served.asker, served.words, served.settings
    since = int(time.time())

    @routes.get("/v1/models")
    async def models() -> ModelList:
        return ModelList(object="list", data=[served.card(since)])

    @routes.get("/v1/models/{name:path}")
    async def model(name: str) -> ModelCard:
        check_name(name)
        return served.card(since)

    @routes.post("/v1/completions", response_model=Completion, responses={200: _STREAM})
    async def completions(body: CompletionRequest, http: Request) -> Response:
        return await answer(http, body, asker.completion, CompletionForm)

    @routes.post("/v1/chat/completions", response_model=ChatCompletion, responses={200: _STREAM})
    async def chat_completions(body: ChatRequest, http: Request) -> Response:
        return await answer(http, body, asker.chat, ChatForm)

    @routes.post("/tokenize")
    async def tokenize(body: TokenizeText | TokenizeChat) -> Tokens:
        if body.model is not None:
            check_name(body.model)
        if isinstance(body, TokenizeChat):
            tokens = await run_in_threadpool(asker.conversation, body.messages)
        else:
            tokens = await run_in_threadpool(words.encode, body.prompt)
        return Tokens(tokens=tokens, count=len(tokens), max_model_len=served.spec.max_seq_len)

    def check_name(name: str) -> None:
        if name != settings.name:
            raise Refusal(
                404,
                f"there is no model {shown(name)}; this server has {shown(settings.name)}",
                param="model",
                code="model_not_found",
            )

    async def answer(http: Request, body: Any, ask: Callable[[Any], Asked], form: Callable[..., Form]) -> Response:
        check_name(body.model)
        try:
            asked = await run_in_threadpool(ask, body)
            if settings.log_prompts:
                log.info("asked: %s", body.model_dump_json(exclude_unset=True))
            loop: EngineLoop = http.app.state.loop
            generation = Generation(loop, words, asked, body.stops, settings.most_seconds)
        except Exception as error:
            raise refusals.refusal_of(error) from error
        formed = form(body, words, settings.name)
        try:
            await generation.accepted()
            if not body.stream:
                return await answering.whole(http, generation, formed)
        except BaseException as error:
            generation.close()
            if isinstance(error, Exception):
                raise refusals.refusal_of(error) from error
            raise
        return answering.Stream(generation, formed)

    return routes


def _watching(metrics: Metrics) -> APIRouter:
    """What needs none: nothing of it tells what anybody asked."""
    routes = APIRouter()
    page = resources.files("mythos_runtime.server").joinpath("page.html").read_text(encoding="utf-8")

    @routes.head("/", include_in_schema=False)
    @routes.get("/", response_class=HTMLResponse)
    async def index() -> HTMLResponse:
        return HTMLResponse(page, headers={"Content-Security-Policy": _PAGE_POLICY})

    @routes.head("/health", include_in_schema=False)
    @routes.get("/health", responses={503: {"model": Status}})
    async def health(http: Request) -> JSONResponse:
        """Whether the process works; one that does not should be started anew."""
        alive = http.app.state.loop.alive
        return JSONResponse({"status": "ok" if alive else "the engine has stopped"}, 200 if alive else 503)

    @routes.head("/ready", include_in_schema=False)
    @routes.get("/ready", responses={503: {"model": Status}})
    async def ready(http: Request) -> JSONResponse:
        """Whether it is worth sending requests here now."""
        loop: EngineLoop = http.app.state.loop
        words = "stopped" if not loop.alive else "full" if loop.load >= loop.most else "ok"
        shards = http.app.state.served.shards
        if words == "ok" and shards is not None and shards.ready < shards.count:
            words = f"{shards.count - shards.ready} of {shards.count} shards are being started anew"
        return JSONResponse({"status": words}, 200 if words == "ok" else 503)

    @routes.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def prometheus() -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return routes
