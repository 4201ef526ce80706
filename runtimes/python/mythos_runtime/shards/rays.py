"""Shards as actors of a Ray cluster: Ray chooses their machines, and starts one anew that is lost. Needs the extra
`ray`. What is computed goes over the same connections as between processes of one machine (`wire`)."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import ray

from mythos_runtime.errors import BackendFailed
from mythos_runtime.session import Options
from mythos_runtime.shards.near import Address
from mythos_runtime.shards.worker import ShardServer

_START_SECONDS = 600  # weights are read


class ShardActor:
    """A shard in an actor's process."""

    def __init__(self, folder: str, index: int, threads: int | None, key: bytes) -> None:
        host = ray.util.get_node_ip_address()
        server = ShardServer(Path(folder), index, Options(threads, provider="cpu"), key, verify_hashes=True)
        self._address = server.listen(host)

    def address(self) -> Address:
        return self._address


class Actors:
    """An actor for each shard, spread over the machines; they end with who made them. The bundle's folder has to be on
    each machine, with the files of the shards that may come there."""

    def __init__(self, folder: Path, count: int, threads: int | None) -> None:
        """`threads`: of each, and the cores that it reserves."""
        self.key = secrets.token_bytes(32)
        kind: Any = ray.remote(ShardActor).options(
            num_cpus=threads or 1, max_restarts=-1, max_task_retries=-1, scheduling_strategy="SPREAD"
        )
        self._given: dict[int, list[Address]] = {}
        self._actors: list[Any] = [
            kind.remote(str(folder.resolve()), index, threads, self.key) for index in range(count)
        ]

    def start(self, index: int) -> Address:
        given = self._given.setdefault(index, [])
        try:
            address = self._address(index)
            if given[-2:] == [
                address,
                address,
            ]:  # a way that is lost is tried again; then the process is taken for hung
                ray.kill(self._actors[index], no_restart=False)
                address = self._address(index)
        except ray.exceptions.GetTimeoutError as error:
            ray.kill(self._actors[index], no_restart=False)  # the next attempt does not wait for this process
            raise BackendFailed(
                f"the actor of shard {index + 1} has not answered for {_START_SECONDS} s; it was ended"
            ) from error
        except ray.exceptions.RayError as error:
            raise BackendFailed(f"the actor of shard {index + 1} does not start: {error}") from error
        given.append(address)
        return address

    def _address(self, index: int) -> Address:
        address: Address = ray.get(self._actors[index].address.remote(), timeout=_START_SECONDS)
        return address

    def stop(self) -> None:
        for actor in self._actors:
            ray.kill(actor)
