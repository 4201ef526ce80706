"""All shards of a model: what a call leaves behind that goes wrong, and that a lost shard comes back."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shard_threads import Threads, shards_of

from mythos_runtime.errors import BackendFailed, RequestError
from mythos_runtime.shards import group, near
from mythos_runtime.shards.group import Shards
from mythos_runtime.shards.share import Share

HOPS = "hops"


def called(shards: Shards) -> tuple[np.ndarray, dict[int, Any]]:
    """What the first shard's second expert puts out, and who gave nothing."""
    one, out = np.zeros(1, np.int64), np.zeros((1, shards.entry.dim), np.float32)
    x = np.ones((1, shards.entry.dim), np.float32)
    return out, shards.take(shards.ask([Share(one, one, one, one + 1), None, None], x), out)


def mended(shards: Shards) -> bool:
    """Whether all shards are there, in a while."""
    until = time.monotonic() + 60
    while shards.ready < shards.count and time.monotonic() < until:
        time.sleep(0.01)
    return shards.ready == shards.count


def test_a_shard_is_tried_again_whatever_kept_it_from_starting(sharded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group, "_PAUSES", (0.01,))
    shards, starter = shards_of(sharded(HOPS, 3))
    known, _ = called(shards)
    failures = [OSError("no more processes"), KeyError("port"), BackendFailed("no room")]

    def start(index: int) -> Any:
        if failures:
            raise failures.pop()
        return Threads.start(starter, index)

    monkeypatch.setattr(starter, "start", start)
    starter.servers[0].cut()
    assert "is being started anew" in str(called(shards)[1][0])
    assert mended(shards) and not failures
    assert np.array_equal(called(shards)[0], known)


def test_what_the_system_refuses_is_the_shard_s_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refused(*_: object, **__: object) -> None:
        raise BlockingIOError("Resource temporarily unavailable")

    monkeypatch.setattr(near.subprocess, "Popen", refused)
    with pytest.raises(BackendFailed, match="shard 2 cannot be started: Resource temporarily unavailable"):
        near.Processes(tmp_path, 2, 1).start(1)


@pytest.mark.parametrize("of", ["_send", "_recv"])
def test_a_call_that_is_broken_off_leaves_nothing_to_the_next(
    of: str, sharded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupt between two parts of one message: what is left of it would be read as another."""
    shards, _ = shards_of(sharded(HOPS, 3))
    known, _ = called(shards)
    connection: Any = shards._connections[0]
    step, parts = getattr(connection, of), []

    def interrupted(data: Any) -> Any:
        parts.append(data)
        if of == "_send":
            step(data[: len(data) // 2])
            raise KeyboardInterrupt
        if len(parts) == 2:
            raise KeyboardInterrupt
        return step(data)

    monkeypatch.setattr(connection, of, interrupted)
    with pytest.raises(KeyboardInterrupt):
        called(shards)
    assert mended(shards)
    assert np.array_equal(called(shards)[0], known) and shards.restarts == 1


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_leaves_the_shards_to_its_parent(sharded: Any) -> None:
    """Asking them, closing them or by its end."""
    shards, starter = shards_of(sharded(HOPS, 3))
    known, _ = called(shards)
    child = os.fork()
    if not child:
        try:
            called(shards)
        except RequestError as error:
            shards.close()
            os._exit(7 if str(shards._owner) in str(error) and not starter.stopped else 2)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert np.array_equal(called(shards)[0], known)
    shards.close()
    assert starter.stopped
