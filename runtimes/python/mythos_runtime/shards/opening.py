"""The shards of a bundle, started."""

from __future__ import annotations

from pathlib import Path

from mythos_runtime.manifest import Manifest
from mythos_runtime.session import Options
from mythos_runtime.shards.group import SECONDS, Shards
from mythos_runtime.shards.near import Processes, Starter


def open_shards(
    folder: Path, manifest: Manifest, options: Options, starter: Starter | None = None, seconds: float = SECONDS
) -> Shards:
    """The shards of a bundle that has them; they end with what is returned.

    Args:
        options: threads are those of all of them together.
        starter: who runs them; None: processes of this machine.
        seconds: see `Shards`.

    Raises:
        RuntimeBundleError: one does not start.
    """
    assert manifest.shards is not None
    count = len(manifest.shards.counts)
    each = None if options.threads is None else max(1, options.threads // count)
    shards = Shards(manifest, starter or Processes(folder, count, each), seconds)
    shards.start()
    return shards
