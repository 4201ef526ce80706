"""A bundle in Ray Serve, from a configuration: `serve run serve.yaml`, or `serve deploy` on a cluster.

The same as `mythos serve BUNDLE --ray --replicas 2-8`, with everything that Ray Serve lets one set in a file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray import serve

from mythos_runtime.manifest import read_manifest
from mythos_runtime.server.auth import read_keys
from mythos_runtime.server.replicas import replicated
from mythos_runtime.server.settings import Settings
from mythos_runtime.session import Options


def build(arguments: dict[str, Any]) -> serve.Application:
    """The application of serve.yaml's `args`."""
    bundle = Path(arguments["bundle"])
    settings = Settings(
        name=arguments.get("name", bundle.name),
        most_loops=read_manifest(bundle, verify_hashes=False).spec.trained_loops,
        keys=read_keys(Path(arguments["keys"])) if "keys" in arguments else (),
        most_running=arguments.get("max_running", 64),
        most_queued=arguments.get("max_queue", 256),
    )
    engine = {"memory": arguments.get("memory", 1 << 30), "options": Options(arguments.get("threads"), provider="cpu")}
    return replicated(bundle, settings, engine, arguments.get("least", 1), arguments.get("most", 1))
