"""The messages between a trunk and a shard, over a `multiprocessing.connection` (TCP): bytes, and nothing pickled.

    hello     shard -> trunk   JSON {shard, sha256, dim}: which experts these are, once the trunk has proved its key
    ask       trunk -> shard   number, u, m int64; row, expert int64 [m]; x float32 [u, D]
    answer    shard -> trunk   number, failed int64; out float32 [m, D], or what went wrong in words (UTF-8)

An answer carries the number of what it answers, so that one that came too late is told from the next. Whoever does not
know the key is not listened to; what is sent is not encrypted: the network between the two has to be one's own.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
from dataclasses import asdict, dataclass
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge

import numpy as np

from mythos_runtime.errors import MOST_WORDS, BackendFailed

_ASK, _ANSWER = struct.Struct("<qqq"), struct.Struct("<qq")
MOST_HELLO = 1 << 12
_MOST_SAID = 4 * MOST_WORDS  # bytes of what went wrong
LOST = (OSError, EOFError, AuthenticationError, struct.error, ValueError)
"""What a connection raises whose other end is gone, or is not what it should be."""


@dataclass(frozen=True)
class Hello:
    """Which shard this is: its number, the hash of its weights' file, and D."""

    shard: int
    sha256: str
    dim: int


@dataclass(frozen=True)
class Ask:
    """Rows x [u, D], and pairs of row and expert."""

    number: int
    row: np.ndarray
    expert: np.ndarray
    x: np.ndarray


def send_ask(connection: Connection, ask: Ask) -> None:
    """Raises one of LOST."""
    head = _ASK.pack(ask.number, len(ask.x), len(ask.row))
    connection.send_bytes(b"".join((head, ask.row.tobytes(), ask.expert.tobytes(), ask.x.tobytes())))


def receive_ask(connection: Connection, dim: int) -> Ask:
    """Waits for it, and does not for the rest of one that has begun. Raises one of LOST."""
    connection.poll(None)
    message = connection.recv_bytes()
    number, rows, pairs = _ASK.unpack_from(message)
    if rows < 0 or pairs < 0 or len(message) != _ASK.size + 16 * pairs + 4 * rows * dim:
        raise ValueError(f"{len(message)} bytes are not {rows} rows of {dim} and {pairs} pairs")
    at = _ASK.size
    row, expert = (np.frombuffer(message, np.int64, pairs, at + 8 * pairs * part) for part in range(2))
    return Ask(number, row, expert, np.frombuffer(message, np.float32, rows * dim, at + 16 * pairs).reshape(rows, dim))


def send_answer(connection: Connection, number: int, answer: np.ndarray | str) -> None:
    """What the experts put out, or what went wrong. Raises one of LOST."""
    body = answer.encode() if isinstance(answer, str) else answer.tobytes()
    connection.send_bytes(_ANSWER.pack(number, isinstance(answer, str)) + body)


def receive_answer(connection: Connection, number: int, pairs: int, dim: int, seconds: float, most: int) -> np.ndarray:
    """float32 [pairs, dim]; `most` pairs have the answers to others that came too late, which are dropped.

    Raises:
        BackendFailed: the shard could not compute it, and is there for the next.
        One of LOST: the shard is gone, or silent for so long, be it in the middle of an answer.
    """
    while True:
        if not connection.poll(seconds):
            raise TimeoutError(f"it has not answered for {seconds:g} s")
        try:
            message = connection.recv_bytes(_ANSWER.size + max(4 * most * dim, _MOST_SAID))
        except BlockingIOError as error:
            raise TimeoutError("it stands still in the middle of an answer") from error
        found, failed = _ANSWER.unpack_from(message)
        if found == number:
            break
    if failed:
        raise BackendFailed(message[_ANSWER.size :].decode("utf-8", "replace"))
    return np.frombuffer(message, np.float32, offset=_ANSWER.size).reshape(pairs, dim)


def connect(address: tuple[str, int], key: bytes, seconds: float) -> tuple[Connection, Hello]:
    """The trunk's end, and who answered. Raises one of LOST."""
    with socket.create_connection(address, timeout=seconds) as made:
        made.setblocking(True)
        connection = Connection(made.detach())
    try:
        _prompt(connection, seconds)
        answer_challenge(connection, key)
        deliver_challenge(connection, key)
        if not connection.poll(seconds):
            raise TimeoutError(f"{address[0]}:{address[1]} does not say who it is")
        said = json.loads(connection.recv_bytes(MOST_HELLO))
        return connection, Hello(int(said["shard"]), str(said["sha256"]), int(said["dim"]))
    except BlockingIOError as error:
        connection.close()
        raise TimeoutError(f"{address[0]}:{address[1]} does not say who it is") from error
    except (KeyError, TypeError, AssertionError) as error:  # the last is how multiprocessing meets another greeting
        connection.close()
        raise ValueError(f"{address[0]}:{address[1]} is no shard of this version") from error
    except BaseException:
        connection.close()
        raise


def accept(connection: Connection, key: bytes, hello: Hello, seconds: float) -> None:
    """The shard's end of `connect`. Raises one of LOST."""
    _prompt(connection, seconds)
    deliver_challenge(connection, key)
    answer_challenge(connection, key)
    connection.send_bytes(json.dumps(asdict(hello)).encode())


def _prompt(connection: Connection, seconds: float) -> None:
    """Send what there is at once, notice a machine that is gone, and do not wait for one that stands still."""
    own = socket.socket(fileno=connection.fileno())
    try:
        own.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        own.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if sys.platform != "win32":
            limit = struct.pack("@ll", int(seconds), max(1, int(seconds % 1 * 1e6)))  # 0 would be none
            for each in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):  # of a stretch of bytes, not of a whole message
                own.setsockopt(socket.SOL_SOCKET, each, limit)
    finally:
        own.detach()  # it stays the connection's
