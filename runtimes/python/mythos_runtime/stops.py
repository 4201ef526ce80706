"""Texts that end a generation, found in text that comes in pieces.

>>> stop = StopTexts(["END"])
>>> stop.feed("the E"), stop.feed("ND and more"), stop.found
('the ', '', 'END')
"""

from __future__ import annotations

from collections.abc import Sequence

from mythos_runtime.errors import RequestError


class StopTexts:
    """Passes text on up to the first of the stop texts, which is not part of it. Holds back what may begin one."""

    def __init__(self, texts: Sequence[str]) -> None:
        if not all(texts):
            raise RequestError("a stop text is empty; it should hold at least one character")
        self._texts = tuple(texts)
        self._longest = max(map(len, texts), default=0)
        self._held = ""
        self.found: str | None = None
        """The stop text that was met; None as long as there was none."""

    def feed(self, piece: str) -> str:
        """The text that may be shown now."""
        if self.found is not None:
            return ""
        text = self._held + piece
        places = [(at + len(stop), at, stop) for stop in self._texts if (at := text.find(stop)) >= 0]
        if places:
            _, at, self.found = min(places)  # the one complete first, however the pieces were cut
            self._held = ""
            return text[:at]
        kept = next((size for size in range(min(self._longest - 1, len(text)), 0, -1) if self._begins(text[-size:])), 0)
        self._held = text[len(text) - kept :]
        return text[: len(text) - kept]

    def finish(self) -> str:
        """What was held back and began no stop text after all."""
        held, self._held = self._held, ""
        return held

    def _begins(self, text: str) -> bool:
        return any(stop.startswith(text) for stop in self._texts)
