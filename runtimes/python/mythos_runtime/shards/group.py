"""All shards of a model: asked together, and started anew where one is lost.

shards = Shards(manifest, starter)
shards.start()
asked = shards.ask(shares, x)          # the trunk computes something else meanwhile
lost = shards.take(asked, out)         # out [pairs, D] is filled; the shards that gave nothing, and why
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import threading
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection

import numpy as np

from mythos_runtime.errors import BackendFailed, RequestError, RuntimeBundleError, Unavailable
from mythos_runtime.manifest import Manifest
from mythos_runtime.shards import wire
from mythos_runtime.shards.near import Starter
from mythos_runtime.shards.share import Share
from mythos_runtime.shards.worker import hello_of

log = logging.getLogger("mythos_runtime.server")
SECONDS = 30.0
_BROKEN_OFF = "a call was broken off, perhaps in the middle of a message"
_PAUSES = (1.0, 2.0, 5.0, 15.0)  # between attempts to start one; the last is kept to


@dataclass(frozen=True)
class Asked:
    """A call under way: its number, each shard's share, and the shards that it was sent to."""

    number: int
    shares: Sequence[Share | None]
    connections: dict[int, Connection]
    lost: dict[int, RuntimeBundleError]


class Shards:
    """See the module's docstring. One call at a time; what is lost is mended in threads of its own.

    Attributes:
        restarts: how often a shard was started anew.
    """

    def __init__(self, manifest: Manifest, starter: Starter, seconds: float = SECONDS) -> None:
        """`seconds`: for a shard to answer in. One that does not is taken for lost."""
        assert manifest.shards is not None
        self.entry, self._starter, self._seconds = manifest.shards, starter, seconds
        self._hellos = [hello_of(manifest, index) for index in range(len(self.entry.counts))]
        self._connections: dict[int, Connection] = {}
        self._numbers = itertools.count(1)
        self._most = 0  # pairs that a shard was ever asked for: an answer that came too late is of no more
        self._closed = threading.Event()
        self.restarts = 0
        self._owner = os.getpid()
        self._stop = weakref.finalize(self, _stop, starter, self._owner)

    def start(self) -> None:
        """Start them all. Raises RuntimeBundleError where one does not start."""
        try:
            with ThreadPoolExecutor(len(self._hellos)) as threads:
                for index, connection in enumerate(threads.map(self._connect, range(len(self._hellos)))):
                    self._connections[index] = connection
        except BaseException:
            self.close()
            raise

    @property
    def count(self) -> int:
        return len(self._hellos)

    @property
    def ready(self) -> int:
        """How many are there."""
        return len(self._connections)

    def close(self) -> None:
        """End them."""
        self._closed.set()
        for index in list(self._connections):
            with contextlib.suppress(OSError):
                self._connections.pop(index).close()
        self._stop()

    def ask(self, shares: Sequence[Share | None], x: np.ndarray) -> Asked:
        """Send rows x [R, D] where they are needed. RequestError in a fork of the process that has the shards."""
        if os.getpid() != self._owner:  # two that read one connection would take each other's answers
            raise RequestError(
                f"the shards of this model are those of process {self._owner}, of which this one, {os.getpid()}, is a "
                "fork: load the model again here"
            )
        self._most = max([self._most, *(len(share.pairs) for share in shares if share is not None)])
        asked = Asked(next(self._numbers), shares, {}, {})
        for index, share in enumerate(shares):
            connection = self._connections.get(index)
            if share is None:
                continue
            if connection is None:
                asked.lost[index] = self._away(index)
                continue
            try:
                wire.send_ask(connection, wire.Ask(asked.number, share.row, share.expert, x[share.rows]))
                asked.connections[index] = connection
            except wire.LOST as error:
                asked.lost[index] = self._lost(index, connection, str(error))
            except BaseException:
                self._lost(index, connection, _BROKEN_OFF)
                raise
        return asked

    def take(self, asked: Asked, out: np.ndarray) -> dict[int, RuntimeBundleError]:
        """Wait for the answers, and put them where their pairs stand in out [pairs, D]. Returns the shards that gave
        none, and why: Unavailable of those that are lost."""
        for index, connection in asked.connections.items():
            share = asked.shares[index]
            assert share is not None
            try:
                out[share.pairs] = wire.receive_answer(
                    connection, asked.number, len(share.pairs), self.entry.dim, self._seconds, self._most
                )
            except BackendFailed as error:
                asked.lost[index] = error
            except wire.LOST as error:
                asked.lost[index] = self._lost(index, connection, str(error))
            except BaseException:
                self._lost(index, connection, _BROKEN_OFF)
                raise
        return asked.lost

    def _connect(self, index: int) -> Connection:
        """A shard's process and the way to it. Raises RuntimeBundleError."""
        address = self._starter.start(index)
        try:
            connection, hello = wire.connect(address, self._starter.key, self._seconds)
        except wire.LOST as error:
            raise BackendFailed(f"shard {index + 1} at {address[0]}:{address[1]} does not answer: {error}") from error
        if hello != self._hellos[index]:
            connection.close()
            raise BackendFailed(
                f"{address[0]}:{address[1]} has other experts than shard {index + 1} of this bundle; give it the same"
            )
        return connection

    def _away(self, index: int) -> Unavailable:
        return Unavailable(f"shard {index + 1} of {self.count} is being started anew; try again in a while")

    def _lost(self, index: int, connection: Connection, why: str) -> Unavailable:
        if self._connections.get(index) is connection:
            del self._connections[index]
            with contextlib.suppress(OSError):
                connection.close()
            log.error("shard %d of %d is lost, and started anew: %s", index + 1, self.count, why or "it has ended")
            mending = threading.Thread(target=_mend, args=(weakref.ref(self), index), daemon=True)
            mending.start()
        return self._away(index)


def _stop(starter: Starter, owner: int) -> None:
    if os.getpid() == owner:  # a fork that ends leaves them to it
        starter.stop()


def _mend(group: weakref.ref[Shards], index: int) -> None:
    """Start a shard anew, as often as it takes; whoever let go of the group needs none."""
    pauses = itertools.chain(_PAUSES, itertools.repeat(_PAUSES[-1]))
    while not _mended(group, index):
        time.sleep(next(pauses))


def _mended(group: weakref.ref[Shards], index: int) -> bool:
    """Whether nothing is left to be done."""
    shards = group()
    if shards is None or shards._closed.is_set():
        return True
    try:
        connection = shards._connect(index)
    except RuntimeBundleError as error:
        log.error("shard %d does not start: %s", index + 1, error)
        return False
    except Exception:  # whatever it was: without this thread nobody would try again
        log.exception("shard %d does not start", index + 1)
        return False
    shards.restarts += 1
    shards._connections[index] = connection
    if shards._closed.is_set():
        connection.close()
    log.warning("shard %d of %d is there again", index + 1, shards.count)
    return True
