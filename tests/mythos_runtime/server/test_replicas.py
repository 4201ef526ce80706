"""`mythos serve --ray`: two real replicas on loopback, one of them killed while both are at work."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import openai
import psutil
import pytest
from click.testing import CliRunner
from served_bundles import settings_of

from mythos_runtime.cli import mythos
from mythos_runtime.engine.native.library import LIBRARY_VARIABLE
from mythos_runtime.session import Options

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
    # The native engine has answered before somebody who has heard the first tokens can kill it.
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0", LIBRARY_VARIABLE: "none"}
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
    return {"model": NAME, "prompt": [60 + number, 9], "max_tokens": 120, "temperature": 1, "seed": number}


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
        assert 0 < len(lost) < 32  # those that it held; those of the other one went on
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


def test_the_emptiest_is_chosen_and_a_burst_is_spread() -> None:
    """By the pages that each said its requests hold, and by what was sent to it since."""
    pytest.importorskip("ray", reason="pip install 'mythos-runtime[ray]'")
    from mythos_runtime.server.replicas import LeastPages

    @dataclass
    class Known:
        replica_id: str
        routing_stats: dict[str, float]
        max_ongoing_requests: int = 8

    router = object.__new__(LeastPages)
    router.initialize_state()
    full, half = ({"held": held, "most_running": 8.0} for held in (0.9, 0.5))
    candidates: list[Any] = [Known("full", full, 500), Known("half", half, 500), Known("new", {})]

    def first() -> str:
        ranked = asyncio.run(router.choose_replicas(candidates))
        assert sorted(len(rank) for rank in ranked) == [1, 1, 1]
        return str(ranked[0][0].replica_id)

    chosen = []
    for _ in range(7):  # nothing that was sent shows in what they say yet
        chosen.append(first())
        router.on_request_routed(None, chosen[-1], None)  # type: ignore[arg-type]
    assert chosen == ["new"] * 4 + ["half", "new", "half"]
    for replica in chosen:
        router.on_request_completed(replica, "")  # type: ignore[arg-type]
    assert first() == "new"


def test_there_are_as_many_as_are_needed(small: Path) -> None:
    """Ray's own settings: from least to most, one more where each has more requests than its engine runs."""
    pytest.importorskip("ray", reason="pip install 'mythos-runtime[ray]'")
    from mythos_runtime.server.replicas import replicated

    settings = settings_of(small, most_running=8, most_queued=16)
    application = replicated(small, settings, {"options": Options(3, provider="cpu")}, 2, 5)
    config = application._bound_deployment._deployment_config
    scaling = config.autoscaling_config
    assert (scaling.min_replicas, scaling.initial_replicas, scaling.max_replicas) == (2, 2, 5)
    assert scaling.target_ongoing_requests == 8
    assert config.max_ongoing_requests > 8 + 16  # the app says 429 itself
    assert application._bound_deployment.ray_actor_options["num_cpus"] == 3


@pytest.mark.parametrize("text", ["0", "3-2", "many", "-1"])
def test_how_many(small: Path, text: str) -> None:
    result = CliRunner().invoke(mythos, ["serve", str(small), "--ray", "--replicas", text])
    assert result.exit_code == 2 and "--replicas should be a number" in result.stderr
