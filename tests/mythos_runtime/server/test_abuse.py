"""Clients that no server deserves: fuzzed requests, broken ones, slow readers, a thousand at a time. Minutes."""

from __future__ import annotations

import asyncio
import json
import random
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)
from served_bundles import NAME, Serving, all_free, serving

pytestmark = pytest.mark.slow

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
"""That what the description allows is always taken is not among them: it cannot know what fits the model."""


@pytest.fixture(scope="module")
def server(small: Path) -> Iterator[Serving]:
    with serving(small, most_running=32, most_queued=2000) as running:
        yield running


@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize(
    "path", ["/v1/completions", "/v1/chat/completions", "/tokenize", "/v1/models", "/v1/models/{name}", "/metrics"]
)
def test_fuzz(server: Serving, path: str, mode: GenerationMode) -> None:
    described = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    (operation,) = described[path].values()
    if mode is GenerationMode.NEGATIVE and not operation.body:
        pytest.skip("it takes nothing, or any text: nothing that it takes can be wrong")

    @settings(max_examples=150, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: schemathesis.Case) -> None:
        if mode is GenerationMode.POSITIVE and isinstance(case.body, dict):
            if "model" in case.body:
                case.body["model"] = NAME  # or nothing behind the name would ever be reached
            for name in ("max_tokens", "max_completion_tokens"):
                if isinstance(case.body.get(name), int):
                    case.body[name] = min(case.body[name], 8)
        case.call_and_validate(checks=CHECKS, timeout=60)

    ask()
    assert all_free(server.loop) and server.loop.alive


def send(server: Serving, data: bytes, wait: float = 2.0) -> bytes:
    """What comes back for these bytes, within some time."""
    with socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1])), timeout=wait) as client:
        try:
            client.sendall(data)
            answer = b""
            while piece := client.recv(65536):
                answer += piece
        except (TimeoutError, ConnectionError):
            pass
        return answer


def posted(body: bytes, *headers: str) -> bytes:
    lines = ["POST /v1/completions HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def test_broken_requests(server: Serving) -> None:
    good = json.dumps({"model": NAME, "prompt": "x", "max_tokens": 2}).encode()
    length = f"Content-Length: {len(good)}"
    draw = random.Random(0)
    cases = [
        (b"\x16\x03\x01\x02\x00\x01\x00", b"400"),  # TLS
        (posted(good, "Content-Length: -1"), b"400"),
        (posted(good, "Content-Length: 9e9"), b"400"),
        (posted(good, length, "Content-Length: 3"), b"400"),
        (posted(b"zz\r\n" + good, "Transfer-Encoding: chunked"), b"400"),
        (posted(b"f" * 30 + b"\r\n", "Transfer-Encoding: chunked"), b"400"),
        (posted(good, length, "X: " + "y" * 200_000), b"400"),
        (posted(good, length, "Connection: close"), b"200"),
        (posted(b'{"a":' * 50_000, f"Content-Length: {5 * 50_000}", "Connection: close"), b"400"),
        (posted(b"[" * 100_000, "Content-Length: 100000", "Connection: close"), b"400"),
        (posted(b'{"model": ' + b"9" * 6000 + b"}", "Content-Length: 6011", "Connection: close"), b"400"),
        (posted(b"\xff\xfe", "Content-Length: 2", "Connection: close"), b"400"),
        (posted(good[:10], length), b""),  # the rest never comes
        (b"POST /v1/comp", b""),
    ]
    for data, status in cases:
        answer = send(server, data, 5.0 if status else 0.3)
        assert answer[:40].split(b" ")[1:2] == ([status] if status else []), (data[:80], answer[:200])
    for _ in range(200):  # random damage
        data = bytearray(posted(good, length, "Connection: close"))
        for _ in range(draw.randrange(1, 6)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        assert not send(server, bytes(data), 0.2).startswith(b"HTTP/1.1 5"), bytes(data)
    assert all_free(server.loop) and server.http().get("/health").status_code == 200


def test_slow_readers_hold_nobody_up(server: Serving) -> None:
    body = json.dumps(
        {"model": NAME, "prompt": "x", "max_tokens": 100, "n": 16, "logprobs": 5, "stream": True, "ignore_eos": True}
    ).encode()
    port = int(server.url.rsplit(":", 1)[1])
    readers = []
    for _ in range(8):
        reader = socket.socket()
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        reader.connect(("127.0.0.1", port))
        reader.sendall(posted(body, f"Content-Length: {len(body)}", "Connection: close"))
        readers.append(reader)
    answer = server.http().post("/v1/completions", json={"model": NAME, "prompt": "y", "max_tokens": 5})
    assert answer.status_code == 200
    assert all_free(server.loop, 120)  # the engine has done them all, though nobody has read
    assert server.http().get("/health", timeout=5).status_code == 200
    for reader in readers:
        reader.settimeout(30)
        text = b""
        while piece := reader.recv(1 << 16):
            text += piece
        assert text.count(b'"finish_reason":"length"') == 16 and b"data: [DONE]" in text
        reader.close()


def test_a_thousand_at_a_time(server: Serving) -> None:
    bodies = [{"model": NAME, "prompt": [n % 50 + 40, 9], "max_tokens": 4, "temperature": 0} for n in range(50)]
    with server.http() as http:
        alone = [http.post("/v1/completions", json=body).json()["choices"][0]["text"] for body in bodies]

    async def all_of_them() -> list[str]:
        limits = httpx2.Limits(max_connections=None)
        async with httpx2.AsyncClient(base_url=server.url, limits=limits, timeout=300) as client:

            async def one(number: int) -> str:
                body = bodies[number % 50] | {"stream": True}
                async with client.stream("POST", "/v1/completions", json=body) as answer:
                    assert answer.status_code == 200
                    events = [line[6:] async for line in answer.aiter_lines() if line.startswith("data: ")]
                assert events.pop() == "[DONE]"
                return "".join(json.loads(event)["choices"][0]["text"] for event in events)

            asked = [asyncio.create_task(one(number)) for number in range(1000)]
            await asyncio.sleep(0.5)
            healthy = await client.get("/health", timeout=30)
            assert healthy.status_code == 200
            return await asyncio.gather(*asked)

    assert asyncio.run(all_of_them()) == alone * 20
    assert all_free(server.loop)


def test_a_thousand_that_leave(server: Serving) -> None:
    async def come_and_go() -> None:
        port = int(server.url.rsplit(":", 1)[1])
        body = json.dumps({"model": NAME, "prompt": "x" * 60, "max_tokens": 60, "stream": True}).encode()

        async def one(seconds: float) -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(posted(body, f"Content-Length: {len(body)}"))
            await asyncio.sleep(seconds)
            writer.transport.abort()

        draw = random.Random(1)
        await asyncio.gather(*(one(draw.random() * 3) for _ in range(1000)))

    asyncio.run(come_and_go())
    assert all_free(server.loop, 60)
    assert server.http().get("/health").status_code == 200
