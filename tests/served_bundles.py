"""A bundle served by uvicorn on loopback, in a thread, for tests that talk to it as clients do."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import openai
import uvicorn

from mythos_runtime.engine.options import EngineOptions
from mythos_runtime.engine.speculation import Speculate
from mythos_runtime.manifest import read_manifest
from mythos_runtime.server import command
from mythos_runtime.server.app import make_app
from mythos_runtime.server.engine_loop import EngineLoop
from mythos_runtime.server.served import Served
from mythos_runtime.server.settings import Settings
from mythos_runtime.session import Options

NAME = "small"


@dataclass(frozen=True)
class Serving:
    """A server that runs: where it is, its app, and clients."""

    url: str
    app: Any

    @property
    def loop(self) -> EngineLoop:
        loop: EngineLoop = self.app.state.loop
        return loop

    def openai(self, key: str = "none") -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=60)

    def async_openai(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=60)

    def http(self) -> httpx2.Client:
        return httpx2.Client(base_url=self.url, timeout=60)

    def metrics(self) -> dict[str, float]:
        """Every sample by its name and labels."""
        lines = httpx2.get(f"{self.url}/metrics").text.splitlines()
        samples = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in samples}


def all_free(loop: EngineLoop, seconds: float = 10.0) -> bool:
    """Whether nothing is left in a loop, within some time: no request, and no page held."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if loop.load == 0 and loop.stats.pages == loop.stats.pages_free and not loop.stats.running:
            return True
        time.sleep(0.01)
    return False


def settings_of(bundle: Path, **changes: Any) -> Settings:
    loops = read_manifest(bundle, verify_hashes=False).spec.trained_loops
    return Settings(**{"name": NAME, "most_loops": loops} | changes)


@contextlib.contextmanager
def serving(
    bundle: Path,
    memory: int = 64 << 20,
    prefixes: int = 0,
    send_buffer: int = 0,
    speculate: Speculate = "off",
    **changes: Any,
) -> Iterator[Serving]:
    """`changes`: of the settings. `send_buffer`: bytes that the system keeps for a client that does not read."""
    settings = settings_of(bundle, **changes)
    manifest = read_manifest(bundle, verify_hashes=False)
    served = Served.open(
        bundle,
        manifest,
        settings,
        engine=EngineOptions(memory=memory, prefixes=prefixes, speculate=speculate),
        options=Options(1, provider="cpu"),
    )
    app = make_app(served)
    listening = command.listen("127.0.0.1", 0)
    if send_buffer:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)  # its connections inherit it
    config = uvicorn.Config(app, http="h11", lifespan="on", ws="none", log_config=None, timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.01)
        yield Serving(command.address(listening), app)
    finally:
        server.should_exit = True
        thread.join()
        listening.close()
