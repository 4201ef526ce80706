"""Shards as Ray actors, on a cluster of this machine alone; through `mythos serve --ray` too."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import openai
import pytest
from golden_bundles import Bundles
from ray_clusters import actors, ray_server
from shard_answers import answers, engine_of, requests
from shard_servers import NAME, Server, ask

from mythos_runtime.errors import BackendFailed
from mythos_runtime.manifest import read_manifest
from mythos_runtime.session import Options
from mythos_runtime.shards.opening import open_shards

pytestmark = pytest.mark.slow


@pytest.fixture
def cluster() -> Iterator[Any]:
    ray = pytest.importorskip("ray", reason="pip install 'mythos-runtime[ray]'")
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield ray
    ray.shutdown()


def test_actors_give_the_bits_of_the_whole_and_come_back(cluster: Any, sharded: Any, bundles: Bundles) -> None:
    from mythos_runtime.shards.rays import Actors

    whole = answers(engine_of(bundles["hops"]), requests(4))
    bundle = sharded("hops", 4)
    shards = open_shards(bundle, read_manifest(bundle), Options(1, provider="cpu"), Actors(bundle, 4, 1))
    try:
        engine = engine_of(bundle, shards=shards)
        assert answers(engine, requests(4)) == whole
        found = actors(os.getpid(), "ShardActor")
        assert len(found) == 4
        found[0].send_signal(signal.SIGKILL)
        running = [engine.submit(request) for request in requests(4)]
        while engine.busy:
            engine.tick()
        assert any(each.error is not None for each in running)
        until = time.monotonic() + 90
        while shards.ready < 4 and time.monotonic() < until:
            time.sleep(0.1)
        assert shards.ready == 4 and answers(engine, requests(4)) == whole
    finally:
        shards.close()


def test_an_actor_that_does_not_answer_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """So that the next attempt has another process."""
    pytest.importorskip("ray", reason="pip install 'mythos-runtime[ray]'")
    from mythos_runtime.shards import rays

    def late(answer: Any, timeout: float) -> Any:
        raise rays.ray.exceptions.GetTimeoutError

    ended: list[tuple[Any, bool]] = []
    monkeypatch.setattr(rays.ray, "get", late)
    monkeypatch.setattr(rays.ray, "kill", lambda actor, no_restart: ended.append((actor, no_restart)))
    kind = MagicMock()
    monkeypatch.setattr(rays.ray, "remote", lambda actor: kind)
    actors = rays.Actors(tmp_path, 1, 1)
    with pytest.raises(BackendFailed, match="the actor of shard 1 has not answered for 600 s; it was ended"):
        actors.start(0)
    assert ended == [(actors._actors[0], False)]


def test_a_replica_has_shards_of_its_own(sharded: Any, bundles: Bundles) -> None:
    pytest.importorskip("ray", reason="pip install 'mythos-runtime[ray]'")
    with Server(bundles["hops"]) as whole:
        known = [ask(whole.client(), number) for number in range(4)]
    with ray_server(sharded("hops", 2), "--name", NAME) as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60)
        assert [ask(client, number) for number in range(4)] == known
        assert len(actors(server.process, "ShardActor")) == 2
