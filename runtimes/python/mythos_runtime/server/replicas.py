"""The same app in Ray Serve: replicas on one machine or many, each with an engine of its own. Needs the extra `ray`.

    serve.run(replicated(bundle, settings, engine_options, least=2, most=2))

A replica that dies takes the requests that it held: their clients see an error or a stream that ends before [DONE], and
may ask again. Ray starts another in its place. The bundle's files are mapped, so that the replicas of one machine share
the pages of the system's cache; the folder has to be there on every machine.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import ray
from fastapi import FastAPI
from ray import serve
from ray.serve.config import AutoscalingConfig, RequestRouterConfig
from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

from mythos_runtime import errors
from mythos_runtime.errors import BackendFailed, RuntimeBundleError
from mythos_runtime.manifest import read_manifest
from mythos_runtime.server import command
from mythos_runtime.server.app import make_app
from mythos_runtime.server.engine_loop import EngineLoop
from mythos_runtime.server.served import Served
from mythos_runtime.server.settings import Settings
from mythos_runtime.shards.rays import Actors

_STATS_SECONDS = 1.0
_PROXY_SECONDS = 30  # Ray ends a proxy that is not ready three times; its own 5 are too few on a machine that is busy


@serve.ingress()
class Replica:
    """The app over a bundle, and what Ray wants to know of it."""

    def __init__(self, bundle: str, settings: Settings, options: dict[str, Any]) -> None:
        folder = Path(bundle)
        manifest, starter = read_manifest(folder, verify_hashes=options.get("verify_hashes", True)), None
        if manifest.shards is not None:
            threads = options["options"].threads if "options" in options else None
            starter = Actors(folder, len(manifest.shards.counts), threads)
        self._settings = settings
        self._app = make_app(Served.open(folder, manifest, settings, starter, **options))

    def __serve_build_asgi_app__(self) -> FastAPI:
        return self._app

    def record_routing_stats(self) -> dict[str, float]:
        """For `LeastPages`: the share of the caches' pages that running requests hold, and how many may run."""
        stats = self._loop.stats
        held = stats.pages_running / stats.pages if stats.pages else 0.0
        return {"held": held, "most_running": float(self._settings.most_running)}

    def check_health(self) -> None:
        """Raises where the engine has stopped: Ray then puts another replica in this one's place."""
        if not self._loop.alive:
            raise RuntimeError("the engine has stopped")

    @property
    def _loop(self) -> EngineLoop:
        loop: EngineLoop = self._app.state.loop
        return loop


class LeastPages(RequestRouter):
    """To the replica whose running requests hold the smallest share of its pages.

    What a replica says of itself is up to a second old. What this router has sent there and has not come back counts
    too, as the share of the requests that may run there, so that a burst does not meet on one. What is kept of ended
    requests does not count: it would send everybody away from where prompts that begin alike are known.
    """

    def initialize_state(self, **_: Any) -> None:
        self._sent: Counter[ReplicaID] = Counter()

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        def load(replica: RunningReplica) -> tuple[float, float]:
            stats = replica.routing_stats
            sent = self._sent[replica.replica_id] / max(stats.get("most_running", replica.max_ongoing_requests), 1)
            held = stats.get("held", 0.0)
            return round(held + sent, 2), sent

        return [[replica] for replica in sorted(candidate_replicas, key=load)]

    def on_request_routed(self, pending_request: PendingRequest, replica_id: ReplicaID, result: Any) -> None:
        self._sent[replica_id] += 1

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:
        self._sent[replica_id] -= 1


def replicated(bundle: Path, settings: Settings, options: dict[str, Any], least: int, most: int) -> serve.Application:
    """An application of `least` to `most` replicas, more where each has more requests than its engine runs.

    `options`: as `open_engine`'s.
    """
    scaling = AutoscalingConfig(
        min_replicas=least, max_replicas=most, initial_replicas=least, target_ongoing_requests=settings.most_running
    )
    routing: dict[str, Any] = {
        "request_router_class": f"{__name__}.{LeastPages.__name__}",
        "request_routing_stats_period_s": _STATS_SECONDS,
    }
    deployment = serve.deployment(
        name="mythos",
        autoscaling_config=scaling,
        # above it the app itself says 429, in the protocol's form; a little more, so that it can
        max_ongoing_requests=settings.most_running + settings.most_queued + 64,
        graceful_shutdown_timeout_s=settings.most_seconds,
        request_router_config=RequestRouterConfig(**routing),
        ray_actor_options={"num_cpus": (options["options"].threads or 1) if "options" in options else 1},
    )
    return deployment(Replica).bind(str(bundle.resolve()), settings, options)


def run(application: serve.Application, host: str, port: int, cluster: str | None, cores: int | None = None) -> None:
    """Serve until SIGTERM or Ctrl-C; then who is being served may end.

    Args:
        cluster: the address of a Ray cluster, or "auto"; None: a cluster of this machine alone, for as long as this
            lasts.
        cores: that this machine's own cluster deals out, where actors ask for more than there are.

    Raises:
        OSError: the port is taken. RuntimeBundleError: no replica, or no HTTP proxy of Ray's, comes up.
    """
    ended = threading.Event()
    if cluster is None:
        command.listen(host, port).close()  # who finds it taken says so here, and not in Ray's words
        os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", str(_PROXY_SECONDS))
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reports its clusters' use otherwise
    ray.init(
        address=cluster,
        num_cpus=None if cluster else cores,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.WARNING,
    )
    try:
        _start(application, host, port)
        signal.signal(signal.SIGTERM, lambda *_: ended.set())
        ended.wait()
    finally:
        serve.shutdown()
        ray.shutdown()


def _start(application: serve.Application, host: str, port: int) -> None:
    """Raises what a replica raised that could not start; BackendFailed where it is Ray's HTTP proxy that did not."""
    try:
        with contextlib.suppress(TimeoutError):  # after 60 s, which are Ray's own: `run` waits for the same proxy again
            serve.start(http_options={"host": host, "port": port})
        serve.run(application)
    except (TimeoutError, ray.exceptions.RayError) as error:
        raise BackendFailed(f"Ray Serve does not answer at {host}:{port}: {_last_line(str(error))}") from error
    except RuntimeError as error:
        raise _as_raised(_why_none() or str(error)) from error


def _why_none() -> str:
    """What Ray knows of replicas that did not start: text with tracebacks."""
    with contextlib.suppress(ray.exceptions.RayError):  # its controller may be gone, too
        applications = serve.status().applications.values()
        return "\n".join(each.message for known in applications for each in known.deployments.values())
    return ""


def _as_raised(message: str) -> RuntimeBundleError:
    """The last error of ours in text with tracebacks, with all its lines."""
    lines = message.strip().splitlines()
    for at in reversed(range(len(lines))):
        name, _, text = lines[at].partition(": ")
        kind = getattr(errors, name.rpartition(".")[2], None)
        if isinstance(kind, type) and issubclass(kind, RuntimeBundleError):
            return kind("\n".join([text, *lines[at + 1 :]]))
    return BackendFailed(f"no replica starts: {_last_line(message)}")


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2]
