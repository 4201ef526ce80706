"""`mythos serve --ray`: two real replicas on loopback, one of them killed while both are at work."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import openai
import psutil
import pytest
from click.testing import CliRunner

from mythos_runtime.cli import mythos

pytestmark = pytest.mark.slow
NAME = "small"


@pytest.fixture(scope="module")
def replicas(small: Path) -> Iterator[str]:
    """The address of two replicas."""
    pytest.importorskip("ray", reason="pip install 'mythos-runtime[ray]'")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    program = [sys.executable, "-c", "from mythos_runtime.cli import mythos; mythos()"]
    options = ["--port", str(port), "--name", NAME, "--threads", "1", "--memory", "32MiB", "--replicas", "2"]
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}
    with subprocess.Popen([*program, "serve", str(small), "--ray", *options], env=environment) as process:
        url = f"http://127.0.0.1:{port}"
        try:
            until = time.monotonic() + 180
            while not _answers(url):
                assert process.poll() is None and time.monotonic() < until, "the replicas did not start"
                time.sleep(0.5)
            yield url
        finally:
            process.terminate()
            process.wait(60)


def _answers(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/ready", timeout=5).status_code == 200
    except httpx2.TransportError:
        return False


def workers() -> list[psutil.Process]:
    """The processes of the replicas, which Ray names so."""
    return [
        each for each in psutil.process_iter(["name"]) if each.info["name"].startswith("ray::ServeReplica:default:m")
    ]


def request(number: int) -> dict[str, Any]:
    return {"model": NAME, "prompt": [60 + number, 9], "max_tokens": 80, "temperature": 1, "seed": number}


def test_one_is_killed_under_load(replicas: str) -> None:
    client = openai.OpenAI(base_url=f"{replicas}/v1", api_key="none", max_retries=0, timeout=120)
    patient = client.with_options(max_retries=8)
    alone = [client.completions.create(**request(number)).choices[0].text for number in range(32)]
    victim, _ = workers()  # looked for before: it takes as long as some answers
    begun: set[int] = set()
    speaking = threading.Event()

    def ask(number: int) -> str | None:
        """The answer; None where it was lost, and said to be."""
        try:
            if number % 2:
                return client.completions.create(**request(number)).choices[0].text
            pieces = []
            for piece in client.completions.create(**request(number), stream=True):
                pieces.append(piece)
                begun.add(number)
                if len(begun) >= 8:
                    speaking.set()
        except (openai.InternalServerError, openai.APIConnectionError, httpx2.TransportError):
            return None
        whole = pieces and pieces[-1].choices[0].finish_reason is not None
        return "".join(piece.choices[0].text for piece in pieces) if whole else None

    with ThreadPoolExecutor(32) as threads:
        going = [threads.submit(ask, number) for number in range(32)]
        assert speaking.wait(60)  # by then all requests are at one replica or the other
        victim.send_signal(signal.SIGKILL)
        answers = [each.result() for each in going]
        lost = [number for number, answer in enumerate(answers) if answer is None]
        assert 0 < len(lost) < 24  # those that it held; the other half went on
        assert all(answer in (None, alone[number]) for number, answer in enumerate(answers))
        again = threads.map(lambda number: patient.completions.create(**request(number)).choices[0].text, lost)
        assert list(again) == [alone[number] for number in lost]
    until = time.monotonic() + 90
    while len(workers()) < 2 and time.monotonic() < until:
        time.sleep(0.5)
    assert len(workers()) == 2  # another is in its place


def test_errors_are_the_app_s(replicas: str) -> None:
    answer = httpx2.post(f"{replicas}/v1/completions", json={"model": NAME, "prompt": "x", "max_tokens": 0})
    assert answer.status_code == 400 and answer.json()["error"]["param"] == "max_tokens"
    assert "mythos_pages_free" in httpx2.get(f"{replicas}/metrics").text


@pytest.mark.parametrize("text", ["0", "3-2", "many", "-1"])
def test_how_many(small: Path, text: str) -> None:
    result = CliRunner().invoke(mythos, ["serve", str(small), "--ray", "--replicas", text])
    assert result.exit_code == 2 and "--replicas should be a number" in result.stderr
