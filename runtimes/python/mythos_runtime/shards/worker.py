"""A shard in a process.

    server = ShardServer(folder, index, Options(threads), key)     # of any machine, in a process of anybody's
    server.listen("127.0.0.1")                                     # -> (host, port); answers in threads of its own

It needs of the bundle the manifest and its own two files. It computes for whoever has the key, one call at a time.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
import threading
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from mythos_runtime.errors import BundleError, RuntimeBundleError
from mythos_runtime.files import check_file
from mythos_runtime.manifest import MANIFEST, Manifest, parse_manifest
from mythos_runtime.ort import OrtSession
from mythos_runtime.session import Options
from mythos_runtime.shards import wire
from mythos_runtime.shards.entry import EXPERTS, ExpertShards

log = logging.getLogger(__name__)
SECONDS = 30.0  # for the other end to take what it asked for


class ShardServer:
    """The experts of one shard, for any number of trunks.

    Attributes:
        hello: which they are.
    """

    def __init__(self, folder: Path, index: int, options: Options, key: bytes, verify_hashes: bool = False) -> None:
        """
        Args:
            verify_hashes: of its own files, which are read for it; else it was done by whoever read the bundle.

        Raises:
            BundleError: the bundle has no such shard, or its files are not there or damaged.
            BackendMissing: as `OrtSession`.
        """
        entry, self.hello = shard_of(folder, index, verify_hashes)
        self._dim, self._key, self._turn = entry.dim, key, threading.Lock()
        self._session = OrtSession(folder / f"{entry.name(index)}.onnx", entry.graphs[EXPERTS], options)

    def listen(self, host: str, port: int = 0) -> tuple[str, int]:
        """Answer from now on. Returns where."""
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        threading.Thread(target=self._listen, args=(listening,), daemon=True).start()
        found = listening.getsockname()
        return str(found[0]), int(found[1])

    def compute(self, row: np.ndarray, expert: np.ndarray, x: np.ndarray) -> np.ndarray:
        """What the experts of pairs (row, expert) [m] put out, float32 [m, D]; x [u, D]. Raises BackendFailed."""
        with self._turn:
            return self._session.run({"x": x, "row": row, "expert": expert})["out"]

    def _listen(self, listening: socket.socket) -> None:
        while True:
            accepted, _ = listening.accept()
            connection = Connection(accepted.detach())
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: Connection) -> None:
        with connection, suppress(*wire.LOST):  # whoever left, or never was one of us
            wire.accept(connection, self._key, self.hello, SECONDS)
            while True:
                ask = wire.receive_ask(connection, self._dim)
                try:
                    answer: np.ndarray | str = self.compute(ask.row, ask.expert, ask.x)
                except RuntimeBundleError as error:
                    log.error("a call failed: %s", error)
                    answer = str(error)
                wire.send_answer(connection, ask.number, answer)


def shard_of(folder: Path, index: int, verify_hashes: bool = False) -> tuple[ExpertShards, wire.Hello]:
    """The entry of a bundle, of which only the manifest and the shard's own files have to be here; and what the shard
    says of itself. Raises BundleError."""
    manifest = _manifest(folder)
    entry = manifest.shards
    if entry is None or not 0 <= index < len(entry.counts):
        count = 0 if entry is None else len(entry.counts)
        raise BundleError(f"{folder} has {count} shards of experts, and no shard {index + 1}")
    for name in (f"{entry.name(index)}.onnx", weights_of(manifest, index)):
        if name in manifest.files:
            check_file(folder, name, manifest.files[name], verify_hashes)
    return entry, hello_of(manifest, index)


def hello_of(manifest: Manifest, index: int) -> wire.Hello:
    """What a shard of this bundle says of itself."""
    entry = manifest.shards
    assert entry is not None
    graph, weights = f"{entry.name(index)}.onnx", weights_of(manifest, index)
    hashed = manifest.files[weights if weights in manifest.files else graph].sha256
    return wire.Hello(index, hashed, entry.dim)


def weights_of(manifest: Manifest, index: int) -> str:
    """The file of a shard's weights. Very small ones are stored in the graph, and there is none."""
    assert manifest.shards is not None
    return f"{manifest.shards.name(index)}.safetensors"


def _manifest(folder: Path) -> Manifest:
    try:
        return parse_manifest((folder / MANIFEST).read_bytes(), str(folder / MANIFEST))
    except OSError as error:
        raise BundleError(f"cannot read {folder / MANIFEST}: {error}") from error


def main() -> None:
    """The process of `near.Processes`: the key comes on stdin, the port goes to stdout. It ends with its parent, whose
    end of stdin closes; signals to the whole group of processes are for the parent, which may want to finish first."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    folder, index, threads = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    key = bytes.fromhex(sys.stdin.readline())
    try:
        server = ShardServer(folder, index, Options(threads or None, provider="cpu"), key)
        said: dict[str, Any] = {"port": server.listen("127.0.0.1")[1]}
    except (RuntimeBundleError, OSError) as error:
        said = {"error": str(error)}
    print(json.dumps(said), flush=True)
    if "port" in said:
        sys.stdin.read()
    os._exit(0 if "port" in said else 1)  # without waiting for a call that nobody wants any more
