"""stdout and stderr as the commands use them: nothing written is lost without a word, and nothing is unprintable.

A full disk or a closed pipe is noticed wherever the text comes from, at the latest when the command ends.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from typing import Any

CLOSED_PIPE = (
    141  # what a shell shows for a process that SIGPIPE ended; we end by ourselves, so that stages are removed
)
LOST = 3


class OutputLost(Exception):
    """Writing failed. No OSError, so that nobody between here and the command line takes it for another file's."""

    def __init__(self, stream: str, cause: OSError) -> None:
        super().__init__(f"cannot write to the standard {stream}: {cause.strerror}")
        self.exit_code = CLOSED_PIPE if cause.errno == errno.EPIPE else LOST


class Checked:
    """A text stream that raises OutputLost where writing fails; all else is the stream's own."""

    def __init__(self, stream: Any, name: str) -> None:
        self._stream, self._name = stream, name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self._stream, attribute)

    def write(self, text: str) -> int:
        try:
            return int(self._stream.write(text))
        except OSError as error:
            raise OutputLost(self._name, error) from error

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            raise OutputLost(self._name, error) from error


@contextlib.contextmanager
def checked_streams() -> Iterator[None]:
    """Within the block stdout and stderr are checked, and show what their encoding lacks as \\u2588, say.

    Raises OutputLost, also for what the last flush could not write.
    """
    before = sys.stdout, sys.stderr
    for stream in before:
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    out, err = Checked(before[0], "output"), Checked(before[1], "error stream")
    sys.stdout, sys.stderr = out, err  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        if not isinstance(sys.exception(), OutputLost):
            out.flush()
            err.flush()


def give_up(stream: Any) -> None:
    """Lead a stream that cannot be written into nothing, or the interpreter fails again when it flushes at its end."""
    with contextlib.suppress(OSError, ValueError):  # no file of the system's, as in tests
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, stream.fileno())
        os.close(nothing)


def shows(stream: Any, text: str) -> bool:
    """Whether a stream can show these characters."""
    try:
        text.encode(getattr(stream, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
