"""`mythos serve --ray`: two real replicas on loopback, one of them killed while both are at work."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import httpx2
import openai
import psutil
import pytest
from click.testing import CliRunner
from ray_clusters import ENVIRONMENT, PROGRAM, RayServer, actors, free_port, ray_server
from served_bundles import settings_of

from mythos_runtime.cli import mythos
from mythos_runtime.engine.native.library import LIBRARY_VARIABLE
from mythos_runtime.errors import BackendFailed, CapacityError
from mythos_runtime.session import Options

pytestmark = pytest.mark.slow
NAME = "small"


@pytest.fixture(scope="module")
def replicas(small: Path) -> Iterator[RayServer]:
    """Two of them."""
    pytest.importorskip("ray", reason="pip install 'mythos-runtime[ray]'")
    # The native engine has answered before somebody who has heard the first tokens can kill it.
    python = {LIBRARY_VARIABLE: "none"}
    with ray_server(small, "--name", NAME, "--replicas", "2", environment=python) as server:
        yield server


def workers(server: RayServer) -> list[psutil.Process]:
    return actors(server.process, "ServeReplica:default:m")


def request(number: int) -> dict[str, Any]:
    return {"model": NAME, "prompt": [60 + number, 9], "max_tokens": 120, "temperature": 1, "seed": number}


def test_one_is_killed_under_load(replicas: RayServer) -> None:
    client = openai.OpenAI(base_url=f"{replicas.url}/v1", api_key="none", max_retries=0, timeout=120)
    patient = client.with_options(max_retries=8)
    alone = [client.completions.create(**request(number)).choices[0].text for number in range(32)]
    victim, _ = workers(replicas)  # looked for before: it takes as long as some answers
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
    while len(workers(replicas)) < 2 and time.monotonic() < until:
        time.sleep(0.5)
    assert len(workers(replicas)) == 2  # another is in its place


def test_errors_are_the_app_s(replicas: RayServer) -> None:
    answer = httpx2.post(f"{replicas.url}/v1/completions", json={"model": NAME, "prompt": "x", "max_tokens": 0})
    assert answer.status_code == 400 and answer.json()["error"]["param"] == "max_tokens"
    assert "mythos_pages_free" in httpx2.get(f"{replicas.url}/metrics").text


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


def test_a_port_that_is_taken(small: Path) -> None:
    pytest.importorskip("ray", reason="pip install 'mythos-runtime[ray]'")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = CliRunner().invoke(mythos, ["serve", str(small), "--ray", "--port", port])
    assert result.exit_code == 3 and f"cannot listen at 127.0.0.1:{port}" in result.stderr


def test_what_a_replica_cannot_do_is_one_line(small: Path) -> None:
    pytest.importorskip("ray", reason="pip install 'mythos-runtime[ray]'")
    command = [*PROGRAM, str(small), "--ray", "--port", str(free_port()), "--memory", "1KiB"]
    ended = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 2 and "error: 1024 bytes hold no page of 32 positions" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            TimeoutError("Proxies not available after 60s."),
            "does not answer at here:80: Proxies not available after 60s",
        ),
        (RuntimeError("it is not to be"), "no replica starts: it is not to be"),
    ],
)
def test_ray_may_not_start(monkeypatch: pytest.MonkeyPatch, error: Exception, words: str) -> None:
    pytest.importorskip("ray", reason="pip install 'mythos-runtime[ray]'")
    from mythos_runtime.server import replicas

    fake = MagicMock()
    fake.start.side_effect = TimeoutError  # of Ray's own; the proxy may still come
    fake.run.side_effect = error
    fake.status().applications.values.return_value = []
    monkeypatch.setattr(replicas, "serve", fake)
    with pytest.raises(BackendFailed, match=words):
        replicas._start(MagicMock(), "here", 80)


@pytest.mark.parametrize("lines", ["no room", "no room\nfor two pages"])
def test_an_error_of_ours_is_raised_as_it_was(lines: str) -> None:
    """With all its lines, whatever tracebacks stand before it."""
    pytest.importorskip("ray", reason="pip install 'mythos-runtime[ray]'")
    from mythos_runtime.server.replicas import _as_raised

    error = _as_raised(f"It failed 3 times.\nRuntimeError: Traceback:\nmythos_runtime.errors.CapacityError: {lines}")
    assert isinstance(error, CapacityError) and str(error) == lines
