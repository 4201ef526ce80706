"""One choice as it grows: tokens in, text out as it becomes certain, up to a stop text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from mythos_runtime.generate import LENGTH
from mythos_runtime.server.logprobs import TokenLogprobs
from mythos_runtime.server.tickets import Chosen
from mythos_runtime.server.words import Words
from mythos_runtime.stops import StopTexts


@dataclass
class Piece:
    """What came since the last piece: text, tokens (the text may lag behind them), and why the choice ended.

    `offset`: characters of the choice before the text; `reused`: tokens of the prompt that were cached.
    """

    index: int
    offset: int
    text: str = ""
    tokens: list[int] = field(default_factory=list)
    depth: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    reused: int = 0
    finished: Literal["stop", "length"] | None = None


class Choice:
    """Tokens become pieces.

    Attributes:
        whole: everything so far.
        done: it has ended; further tokens are nobody's.
    """

    def __init__(self, index: int, words: Words, stops: Sequence[str]) -> None:
        self.index = index
        self.whole = Piece(index, 0)
        self._decoder, self._stops = words.stream(), StopTexts(stops)

    @property
    def done(self) -> bool:
        return self.whole.finished is not None

    def feed(self, event: Chosen) -> Piece:
        """The piece that a token makes."""
        piece = Piece(self.index, len(self.whole.text), tokens=[event.token], depth=[event.depth], reused=event.reused)
        if event.logprobs is not None:
            piece.logprobs = [event.logprobs]
        piece.text = self._stops.feed(self._decoder.feed(event.token))
        ended = event.finished is not None
        if ended:
            piece.text += self._stops.feed(self._decoder.finish())
        if self._stops.found is not None:
            piece.finished = "stop"
        elif ended:
            piece.text += self._stops.finish()
            piece.finished = "length" if event.finished == LENGTH else "stop"
        self._add(piece)
        return piece

    def _add(self, piece: Piece) -> None:
        whole = self.whole
        whole.text += piece.text
        whole.tokens += piece.tokens
        whole.depth += piece.depth
        whole.logprobs += piece.logprobs
        whole.reused = max(whole.reused, piece.reused)
        whole.finished = piece.finished
