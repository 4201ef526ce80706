"""Shards in threads of the test's own process: the real messages over loopback, and no process to wait for."""

from __future__ import annotations

import socket
from multiprocessing.connection import Connection
from pathlib import Path

from mythos_runtime.errors import BackendFailed
from mythos_runtime.manifest import read_manifest
from mythos_runtime.session import Options
from mythos_runtime.shards.group import Shards
from mythos_runtime.shards.near import Address
from mythos_runtime.shards.worker import ShardServer


class Held(ShardServer):
    """A shard whose connections can be cut."""

    connections: list[Connection]

    def _serve(self, connection: Connection) -> None:
        self.__dict__.setdefault("connections", []).append(connection)
        super()._serve(connection)

    def cut(self) -> None:
        """As if the process were gone, for those that are connected."""
        for connection in self.connections:
            with socket.socket(fileno=connection.fileno()) as own:
                own.shutdown(socket.SHUT_RDWR)
                own.detach()


class Threads:
    """A `Starter`.

    Attributes:
        refuse: shards that do not start.
    """

    def __init__(self, folder: Path) -> None:
        self.key, self._folder = b"a key", folder
        self.servers: dict[int, Held] = {}
        self.refuse: set[int] = set()
        self.stopped = False

    def start(self, index: int) -> Address:
        if index in self.refuse:
            raise BackendFailed("there is no room for it")
        self.servers[index] = Held(self._folder, index, Options(1, provider="cpu"), self.key)
        return self.servers[index].listen("127.0.0.1")

    def stop(self) -> None:
        self.stopped = True


def shards_of(folder: Path, seconds: float = 10.0) -> tuple[Shards, Threads]:
    """All shards of a bundle, started."""
    starter = Threads(folder)
    shards = Shards(read_manifest(folder), starter, seconds)
    shards.start()
    return shards, starter
