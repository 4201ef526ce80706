"""What a server does under its clients: limits, queues, clients that leave, keys, figures, and its end."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from click.testing import CliRunner
from golden_bundles import SHIPPED_HOPS, Bundles
from served_bundles import NAME, Serving, all_free, serving

from mythos_runtime.cli import mythos
from mythos_runtime.errors import RequestError
from mythos_runtime.manifest import read_manifest
from mythos_runtime.server import answering, limits
from mythos_runtime.server.settings import Settings

LONG: dict[str, Any] = {"model": NAME, "prompt": "x" * 20, "max_tokens": 100, "ignore_eos": True}


def test_a_client_that_leaves_takes_nothing_with_it(server: Serving, unhurried: None) -> None:
    before = server.metrics()['mythos_requests_total{reason="cancelled"}'] if _cancelled(server) else 0.0
    stream = server.openai().completions.create(**{k: v for k, v in LONG.items() if k != "ignore_eos"}, stream=True)
    next(iter(stream))
    assert server.loop.stats.pages_free < server.loop.stats.pages
    stream.close()
    assert all_free(server.loop)
    with socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1]))) as client:  # and who never read
        body = json.dumps(LONG).encode()
        client.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n")
        client.sendall(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        until = time.monotonic() + 10
        while not server.loop.load and time.monotonic() < until:
            time.sleep(0.002)
    assert all_free(server.loop)
    assert server.metrics()['mythos_requests_total{reason="cancelled"}'] == before + 2


def _cancelled(server: Serving) -> bool:
    return 'mythos_requests_total{reason="cancelled"}' in server.metrics()


def test_above_the_queue_is_429(small: Path, unhurried: None) -> None:
    with serving(small, most_running=2, most_queued=3) as server, contextlib.ExitStack() as open_streams:
        http = open_streams.enter_context(server.http())
        body = LONG | {"stream": True, "policy": "full"}
        answers = [open_streams.enter_context(http.stream("POST", "/v1/completions", json=body)) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [200] * 5
        refused = http.post("/v1/completions", json=body)
        error = refused.json()["error"]
        assert (refused.status_code, error["type"], error["code"]) == (429, "rate_limit_error", "queue_full")
        assert 1 <= int(refused.headers["Retry-After"]) <= 60
        assert (http.get("/ready").status_code, http.get("/health").status_code) == (503, 200)
        samples = server.metrics()
        assert samples["mythos_running"] == 2 and samples["mythos_waiting"] == 3
        too_many = http.post("/v1/completions", json=LONG | {"n": 6})
        assert too_many.status_code == 400 and "more than this server takes" in too_many.json()["error"]["message"]
        open_streams.close()
        assert all_free(server.loop)
        assert server.http().get("/ready").json() == {"status": "ok"}


def test_limits_on_body_prompt_tokens_and_time(small: Path) -> None:
    limits: dict[str, Any] = {"most_body": 2000, "most_prompt": 30, "most_tokens": 50, "most_seconds": 0.05}
    with serving(small, **limits) as server, server.http() as http:

        def asked(**changes: Any) -> tuple[int, str]:
            answer = http.post("/v1/completions", json=LONG | {"max_tokens": 5} | changes)
            return answer.status_code, answer.json()["error"]["message"] if answer.status_code != 200 else ""

        assert asked(prompt="x" * 2001) == (413, "the body is larger than the 2000 bytes that this server takes")
        chunked = http.post(
            "/v1/completions", content=iter([b"x" * 1500] * 2), headers={"Content-Type": "application/json"}
        )
        assert chunked.status_code == 413
        assert asked(prompt="x" * 31) == (400, "the prompt has 31 tokens, and this server takes up to 30")
        assert asked(max_tokens=51) == (400, "max_tokens is 51, but at most 50 are given here")
        assert asked(max_tokens=50, n=60) == (504, "the request took longer than this server allows")
        body = LONG | {"max_tokens": 50, "n": 60, "stream": True}
        with http.stream("POST", "/v1/completions", json=body) as answer:  # the status may have gone out
            words = answer.read().decode()
        assert "longer than this server allows" in words and "[DONE]" not in words
        assert all_free(server.loop)


def test_a_body_that_does_not_come_in(server: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_SECONDS", 0.1)
    with socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1])), timeout=10) as client:
        client.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 999\r\n\r\n{")
        client.settimeout(0.03)
        until, answer = time.monotonic() + 10, b""
        while not answer and time.monotonic() < until:  # a byte now and then is no body either
            client.sendall(b" ")
            with contextlib.suppress(TimeoutError):
                answer = client.recv(1000)
        assert answer.startswith(b"HTTP/1.1 408 ")


def test_a_client_that_stops_reading(
    small: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is left, and its requests are ended."""
    caplog.set_level("INFO", "mythos_runtime.server")
    monkeypatch.setattr(answering, "_SEND_SECONDS", 0.1)
    body = json.dumps(LONG | {"n": 8, "logprobs": 5, "stream": True}).encode()
    with serving(small, send_buffer=4096) as server, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client.connect(("127.0.0.1", int(server.url.rsplit(":", 1)[1])))
        client.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n")
        client.sendall(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        assert client.recv(10).startswith(b"HTTP/1.1 2")
        until = time.monotonic() + 30
        while "did not read" not in caplog.text and time.monotonic() < until:
            time.sleep(0.01)
        assert "did not read" in caplog.text and all_free(server.loop, 30)


def test_keys(small: Path) -> None:
    with serving(small, keys=("secret", "clé")) as server, server.http() as http:
        for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "secret"}):
            answer = http.get("/v1/models", headers=given)
            assert answer.status_code == 401 and answer.json()["error"]["code"] == "invalid_api_key", given
        assert http.post("/v1/completions", json=LONG).status_code == 401
        assert http.post("/tokenize", json={"prompt": "x"}).status_code == 401
        for path in ("/", "/health", "/ready", "/metrics"):
            assert http.get(path).status_code == 200, path
        for path in ("/", "/health", "/ready"):
            answer = http.head(path)
            assert answer.status_code == 200 and not answer.content, path
        assert server.openai("secret").models.list().data[0].id == NAME
        accented = http.get("/v1/models", headers={"Authorization": "Bearer clé".encode()})
        assert accented.status_code == 200
        with pytest.raises(openai.AuthenticationError):
            server.openai("Secret").models.list()


def test_a_page_of_another_name_reaches_nothing(small: Path) -> None:
    with serving(small, hosts=("127.0.0.1", "localhost")) as server, server.http() as http:
        assert http.get("/health").status_code == 200
        assert http.get("/v1/models", headers={"Host": "evil.example"}).status_code == 400
        plain = http.post("/v1/completions", content=json.dumps(LONG), headers={"Content-Type": "text/plain"})
        assert plain.status_code == 400  # what a page may send without being asked first


def test_figures(server: Serving) -> None:
    before = server.metrics()
    server.openai().completions.create(model=NAME, prompt="xyz", max_tokens=9, temperature=0)
    after = server.metrics()
    grown = {name: value - before.get(name, 0.0) for name, value in after.items()}
    assert grown["mythos_generated_tokens_total"] == grown["mythos_token_depth_count"] == 9
    assert grown["mythos_prompt_tokens_total"] == 3
    assert grown["mythos_time_to_first_token_seconds_count"] == 1
    assert grown["mythos_time_per_token_seconds_count"] == 8
    assert grown['mythos_requests_total{reason="length"}'] == grown["mythos_request_seconds_count"] == 1
    assert grown["mythos_rows_total"] > grown["mythos_steps_total"] > 8
    assert after["mythos_late_share"] == pytest.approx(after["mythos_late_rows_total"] / after["mythos_rows_total"])
    assert after["mythos_pages"] > 0 and after["mythos_engine_restarts_total"] == 0


def test_figures_of_drafts(small: Path) -> None:
    with serving(small, speculate=2) as server:
        server.openai().completions.create(model=NAME, prompt="xyz", max_tokens=9, temperature=0)
        figures = server.metrics()
    assert figures["mythos_drafted_tokens_total"] > 0
    assert figures["mythos_accepted_tokens_total"] <= figures["mythos_drafted_tokens_total"]


def test_logs_hold_no_prompts(server: Serving, caplog: pytest.LogCaptureFixture) -> None:
    """Answered, refused for what they are, or refused by the engine; `--log-prompts` is held by the test of SIGTERM."""
    caplog.set_level("DEBUG")
    secret = "a most secret prompt"
    with server.http() as http:
        for body in ({"max_tokens": 2}, {"max_tokens": 0}, {"max_loops": 99}, {"prompt": [[secret]]}):
            http.post("/v1/completions", json={"model": NAME, "prompt": secret} | body)
    server.openai().chat.completions.create(model=NAME, messages=[{"role": "user", "content": secret}], max_tokens=1)
    assert secret not in caplog.text


def test_a_bundle_of_ids(bundles: Bundles) -> None:
    with serving(bundles[SHIPPED_HOPS]) as server, server.http() as http:
        body = {"model": NAME, "prompt": [1, 2, 3], "max_tokens": 1, "logprobs": 2}
        (choice,) = http.post("/v1/completions", json=body).json()["choices"]
        assert choice["text"] == "" and choice["logprobs"]["tokens"] == [f"id:{choice['token_ids'][0]}"]
        for change, words in (
            ({"prompt": "text"}, "no tokenizer: give the prompt as a list of ids"),
            ({"stop": "x"}, "stop is text"),
        ):
            assert words in http.post("/v1/completions", json=body | change).json()["error"]["message"]
        chat = http.post("/v1/chat/completions", json={"model": NAME, "messages": [{"role": "user", "content": "x"}]})
        assert chat.status_code == 400 and "it cannot chat" in chat.json()["error"]["message"]


# -- the command -------------------------------------------------------------------------------------------------------


# After its first token an answer waits for a file: what happens to a server meanwhile is no matter of time.
_HELD = """
import pathlib, time
from mythos_runtime.cli import mythos
from mythos_runtime.engine.engine import Engine
from mythos_runtime.engine.native import NativeEngine

def held(tick, go, answered):
    def wait(engine):
        while answered and not go.exists():
            time.sleep(0.002)
        tokens = tick(engine)
        answered.extend(tokens)
        return tokens
    return wait

for kind in (Engine, NativeEngine):
    kind.tick = held(kind.tick, pathlib.Path({go!r}), [])
mythos()
"""


@contextlib.contextmanager
def held_command(bundle: Path, go: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`mythos serve` as a program, whose first answer goes on when there is a file `go`; and its address."""
    program = [sys.executable, "-c", _HELD.format(go=str(go))]
    arguments = ["serve", str(bundle), "--port", "0", "--name", NAME, "--threads", "1", *options]
    with subprocess.Popen([*program, *arguments], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        try:
            found = re.search(r"http://[\w.:\[\]]+", process.stderr.readline())
            assert found is not None
            yield process, found[0]
        finally:
            if process.poll() is None:
                process.kill()


def refuses(url: str, seconds: float) -> bool:
    """Whether a server takes no new connections any more, within some time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            httpx2.get(f"{url}/health")
        except httpx2.ConnectError:
            return True
        except httpx2.TransportError:  # it was taken, and ended with the server's socket
            pass
        time.sleep(0.01)
    return False


def test_sigterm_drains(small: Path, tmp_path: Path) -> None:
    """No new connection is taken while the answer that was being given is given to its end."""
    go, options = tmp_path / "go", ("--log-prompts", "--drain-seconds", "60")
    with held_command(small, go, *options) as (process, url), httpx2.Client(base_url=url, timeout=30) as http:
        body = LONG | {"prompt": "secret", "stream": True, "policy": "full"}
        with http.stream("POST", "/v1/completions", json=body) as answer:
            lines = answer.iter_lines()
            next(lines)
            os.kill(process.pid, signal.SIGTERM)
            assert refuses(url, 20)
            go.touch()
            events = [line for line in lines if line.startswith("data: ")]
        assert events[-1] == "data: [DONE]" and '"finish_reason":"length"' in events[-2]
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, "")
    assert '"POST /v1/completions HTTP/1.1" 200' in err and 'asked: {"model":"small"' in err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--host", "0.0.0.0"], "others reach 0.0.0.0: give --api-key-file FILE, or --no-keys"),
        (["--api-key-file", "nowhere"], "the keys in nowhere cannot be read: No such file"),
        (["--memory", "3 apples"], "'3 apples' is no size"),
        (["--memory", "1KiB"], "hold no page of 32 positions"),
        (["--host", "256.0.0.1", "--no-keys"], "there is no address 256.0.0.1"),
        (["--name", " "], "--name is empty"),
        (["--replicas", "2"], "--replicas means nothing without --ray"),
        (["--ray-address", "auto"], "--ray-address means nothing without --ray"),
        (["--weights", "/tmp"], "--weights means nothing to this bundle"),
        (["--speculate", "0"], "--speculate '0' is not auto, off, or a number of loops from 1 on"),
        (["--speculate", "99"], "--speculate 99 drafts nothing, as a token runs at most"),
    ],
)
def test_a_mistake_is_one_line(small: Path, options: list[str], words: str) -> None:
    result = CliRunner().invoke(mythos, ["serve", str(small), "--port", "0", *options])
    assert result.exit_code == 2 and words in result.stderr and "Traceback" not in result.output


def test_a_port_that_is_taken(small: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = CliRunner().invoke(mythos, ["serve", str(small), "--port", port])
    assert result.exit_code == 3 and f"cannot listen at 127.0.0.1:{port}" in result.stderr


def test_settings_have_no_secret_defaults() -> None:
    assert Settings(name="x", most_loops=1).keys == () and not Settings(name="x", most_loops=1).log_prompts


def test_fewer_loops_than_trained_are_everybodys(small: Path) -> None:
    with serving(small, most_loops=2) as server:
        extra = {"return_depth": True}
        answer = server.openai().completions.create(model=NAME, prompt="ab", max_tokens=12, extra_body=extra)
        assert max((answer.choices[0].model_extra or {})["depth"]) <= 2
    with pytest.raises(RequestError, match="max_loops is 20, but at most 10 are served"):
        Settings(name="x", most_loops=10, max_loops=20).check(read_manifest(small).spec)
