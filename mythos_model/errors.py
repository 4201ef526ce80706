"""Errors of the model package: each carries the exit code that a command line should leave with; and what may stand in
their one line."""

from __future__ import annotations

from collections.abc import Iterable

MOST_WORDS = 2000  # characters of an error
LISTED = 12  # names of one kind that an error lists before it only counts


class ModelError(Exception):
    """Base of everything that `mythos_model` raises about a user's input.

    `exit_code` follows the project's convention: 1 the result is wrong, 2 the request or the input is wrong,
    3 this machine lacks something needed.
    """

    exit_code = 2

    def __init__(self, text: str = "") -> None:
        """What a file or another library said may be of any length: its middle is left out."""
        super().__init__(
            text if len(text) <= MOST_WORDS else f"{text[: MOST_WORDS // 2]} ... {text[-MOST_WORDS // 4 :]}"
        )


class ConfigError(ModelError):
    """A model configuration is incomplete, inconsistent or not a configuration at all."""


class CheckpointError(ModelError):
    """A checkpoint cannot be read, or does not hold the tensors that its configuration promises."""


def shown(name: object) -> str:
    """A name from a file as an error may print it: short, on one line, nothing that a terminal acts on."""
    text = name if isinstance(name, str) else ascii(name) if isinstance(name, (int, float)) else type(name).__name__
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= 120 else f"{text[:80]}... ({len(text)} characters)"


def some(names: Iterable[object]) -> str:
    """The first names of a list, and how many more there are."""
    listed = list(names)
    rest = len(listed) - LISTED
    return ", ".join(map(shown, listed[:LISTED])) + (f" and {rest} more" if rest > 0 else "")
