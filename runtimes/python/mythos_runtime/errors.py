"""Errors of the runtime. Each class carries the exit code that a command line should leave with.

1: a result is wrong; 2: the request or the input is wrong; 3: this machine lacks something needed.
"""

from __future__ import annotations

from typing import Any

MOST_WORDS = 2000  # characters of an error


class RuntimeBundleError(Exception):
    """Base of everything that `mythos_runtime` raises on purpose."""

    exit_code = 2

    def __init__(self, text: str = "") -> None:
        """What a file or another library said may be of any length: its middle is left out."""
        super().__init__(
            text if len(text) <= MOST_WORDS else f"{text[: MOST_WORDS // 2]} ... {text[-MOST_WORDS // 4 :]}"
        )


class BundleError(RuntimeBundleError):
    """The bundle is damaged, incomplete, of an unknown version, or not a bundle."""

    exit_code = 2


class NotVerified(UserWarning):
    """A warning: nothing in the bundle was ever compared with its model."""


class RequestError(RuntimeBundleError):
    """The caller asked for something that this model cannot do."""

    exit_code = 2


class CapacityError(RequestError):
    """The tokens do not fit the cache or the model's sequence length. Raised before anything is computed or written."""

    exit_code = 2


class StorageError(RuntimeBundleError):
    """The disk is full, read-only or closed to this user."""

    exit_code = 3


class BackendMissing(RuntimeBundleError):
    """This machine lacks what the chosen backend needs; the message says what to install."""

    exit_code = 3


class BackendFailed(RuntimeBundleError):
    """The backend could not finish a call that was valid: memory, a driver, a kernel."""

    exit_code = 3


class Unavailable(BackendFailed):
    """A part of what computes is lost, and being started anew: the same call may succeed a little later.

    Attributes:
        seconds: when to try again.
        sequences: of an engine's call, those whose rows needed it; the others can be run again at once.
    """

    def __init__(self, text: str = "", seconds: int = 5, sequences: frozenset[Any] = frozenset()) -> None:
        super().__init__(text)
        self.seconds, self.sequences = seconds, sequences


class ResultError(RuntimeBundleError):
    """The backend returned something that cannot be right, such as more loops than were allowed, or NaN."""

    exit_code = 1
