"""How long work says where it is: what runs, and the part of it that is done where that is known."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called with the name of each step as it begins, and again while it runs with the part that is done, 0 to 1."""

    def __call__(self, step: str, part: float | None = None, /) -> None: ...


def silent(step: str, part: float | None = None, /) -> None:
    """Says nothing."""
