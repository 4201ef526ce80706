"""The messages between a trunk and a shard, where the other end does not keep to them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from multiprocessing.connection import Connection

import numpy as np
import pytest

from mythos_runtime.errors import MOST_WORDS, BackendFailed
from mythos_runtime.shards import wire

KEY, HELLO = b"a key", wire.Hello(0, "0" * 64, 4)
LIMIT, MUCH_LATER = 0.2, 5.0  # the other end gives up much later, so that a wait without a limit is another error
Serve = Callable[[Callable[[Connection], None]], tuple[str, int]]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Have a function answer one connection, which then stays open; where it listens."""
    with ExitStack() as stack:
        done = threading.Event()

        def start(answer: Callable[[Connection], None]) -> tuple[str, int]:
            listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

            def run() -> None:
                with suppress(*wire.LOST), Connection(listening.accept()[0].detach()) as connection:
                    answer(connection)
                    done.wait(MUCH_LATER)

            thread = threading.Thread(target=run)
            thread.start()
            stack.callback(thread.join)
            address: tuple[str, int] = listening.getsockname()
            return address

        yield start
        done.set()


def test_a_shard_that_stands_still_in_the_middle_of_an_answer_is_lost(serve: Serve) -> None:
    def half(connection: Connection) -> None:
        wire.accept(connection, KEY, HELLO, MUCH_LATER)
        with socket.socket(fileno=connection.fileno()) as own:
            own.sendall((32).to_bytes(4, "big") + bytes(7))
            own.detach()

    connection, hello = wire.connect(serve(half), KEY, LIMIT)
    with connection, pytest.raises(TimeoutError, match="in the middle of an answer"):
        assert hello == HELLO
        wire.receive_answer(connection, 1, 1, 4, MUCH_LATER, 1)


def test_an_answer_is_as_large_as_what_was_asked_for(serve: Serve) -> None:
    """Or as many words as an error has; nothing else is read."""

    def answer(connection: Connection) -> None:
        wire.accept(connection, KEY, HELLO, MUCH_LATER)
        wire.send_answer(connection, 1, np.ones((3, 1024), np.float32))  # to somebody who does not wait any more
        wire.send_answer(connection, 2, "\U0001f534" * MOST_WORDS)
        wire.send_answer(connection, 3, np.ones((4, 1024), np.float32))

    connection, _ = wire.connect(serve(answer), KEY, MUCH_LATER)
    with connection:
        with pytest.raises(BackendFailed, match="\U0001f534"):
            wire.receive_answer(connection, 2, 1, 1024, MUCH_LATER, 3)
        with pytest.raises(OSError, match="bad message length"):
            wire.receive_answer(connection, 3, 3, 1024, MUCH_LATER, 3)


def test_a_trunk_does_not_wait_for_a_greeting_without_end(serve: Serve) -> None:
    with pytest.raises(TimeoutError, match="does not say who it is"):
        wire.connect(serve(lambda connection: None), KEY, LIMIT)


def test_what_is_no_shard_is_said_to_be_none(serve: Serve) -> None:
    with pytest.raises(wire.LOST):
        wire.connect(serve(lambda connection: connection.send_bytes(b"220 mail.example.org")), KEY, LIMIT)


def test_a_shard_does_not_wait_for_a_greeting_without_end(serve: Serve) -> None:
    trunk = socket.create_connection(serve(lambda connection: None))
    with Connection(trunk.detach()) as connection, pytest.raises(BlockingIOError):
        wire.accept(connection, KEY, HELLO, LIMIT)
