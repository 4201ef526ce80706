"""SIGTERM, which service managers and `timeout` send, ends a command as Ctrl-C does: what it made is cleaned up."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

TERMINATED = 128 + signal.SIGTERM


class Terminated(BaseException):
    """SIGTERM came."""


@contextlib.contextmanager
def terminable(said: str) -> Iterator[None]:
    """In here SIGTERM unwinds the stack like an exception; then `said` is printed and the process exits with 143."""

    def end(number: int, frame: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would leave the cleaning half done
        raise Terminated

    ignored = signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    if ignored or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except Terminated:
        print(said, file=sys.stderr)
        sys.exit(TERMINATED)
    finally:
        signal.signal(signal.SIGTERM, before)
