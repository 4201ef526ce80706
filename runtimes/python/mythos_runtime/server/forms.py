"""Pieces in the protocol's forms: completions, chats, and the chunks of their streams."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Any

from mythos_runtime.server.choice import Piece
from mythos_runtime.server.logprobs import TokenLogprobs
from mythos_runtime.server.schemas import (
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    ChatLogprobs,
    ChatRequest,
    ChunkChoice,
    Completion,
    CompletionChoice,
    CompletionLogprobs,
    CompletionRequest,
    Delta,
    Generation,
    PromptDetails,
    Said,
    TokenLogprob,
    TopLogprob,
    Usage,
)
from mythos_runtime.server.words import Words


class Form:
    """How one request is answered. Every answer is JSON as text; fields that were not asked for are left out."""

    prefix = ""

    def __init__(self, body: Generation, words: Words, name: str) -> None:
        self._words = words
        self._ids = bool(body.return_token_ids) or words.tokenizer is None
        self._depth = bool(body.return_depth)
        self._details = self._ids or self._depth
        self._counts = body.stream_options is not None and body.stream_options.include_usage
        self._head: dict[str, Any] = {
            "id": f"{self.prefix}{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": name,
        }

    def opening(self, index: int) -> str | None:
        """What a choice's stream begins with."""
        return None

    def shows(self, piece: Piece) -> bool:
        """Whether a stream's reader learns anything from it."""
        return bool(piece.text) or piece.finished is not None or self._details or bool(piece.logprobs)

    def whole(self, pieces: Sequence[Piece], usage: Usage) -> str:
        raise NotImplementedError

    def chunk(self, piece: Piece) -> str:
        raise NotImplementedError

    def last(self, usage: Usage) -> str | None:
        """A chunk with the usage, where it was asked for."""
        raise NotImplementedError

    def _pending(self) -> dict[str, Any]:
        """Of a chunk before that."""
        return {"usage": None} if self._counts else {}

    def _extras(self, piece: Piece) -> dict[str, Any]:
        depth = {"depth": piece.depth} if self._depth else {}
        return depth | ({"token_ids": piece.tokens} if self._ids else {})


class CompletionForm(Form):
    """Of /v1/completions."""

    prefix = "cmpl-"

    def __init__(self, body: CompletionRequest, words: Words, name: str) -> None:
        super().__init__(body, words, name)
        self._logprobs = body.logprobs is not None

    def whole(self, pieces: Sequence[Piece], usage: Usage) -> str:
        return self._json([self._choice(piece) for piece in pieces], usage=usage)

    def chunk(self, piece: Piece) -> str:
        return self._json([self._choice(piece)], **self._pending())

    def last(self, usage: Usage) -> str | None:
        return self._json([], usage=usage) if self._counts else None

    def _json(self, choices: list[CompletionChoice], **more: Any) -> str:
        return Completion(object="text_completion", choices=choices, **self._head, **more).model_dump_json(
            exclude_unset=True
        )

    def _choice(self, piece: Piece) -> CompletionChoice:
        return CompletionChoice(
            index=piece.index,
            text=piece.text,
            logprobs=self._table(piece) if self._logprobs else None,
            finish_reason=piece.finished,
            **self._extras(piece),
        )

    def _table(self, piece: Piece) -> CompletionLogprobs:
        texts = [self._words.token(token)[0] for token in piece.tokens]
        offsets, at = [], piece.offset
        for text in texts:
            offsets.append(at)
            at += len(text)
        top = [{self._words.token(token)[0]: value for token, value in each.top} for each in piece.logprobs]
        chosen = [each.chosen for each in piece.logprobs]
        return CompletionLogprobs(tokens=texts, token_logprobs=chosen, top_logprobs=top, text_offset=offsets)


class ChatForm(Form):
    """Of /v1/chat/completions."""

    prefix = "chatcmpl-"

    def __init__(self, body: ChatRequest, words: Words, name: str) -> None:
        super().__init__(body, words, name)
        self._logprobs = bool(body.logprobs)

    def opening(self, index: int) -> str | None:
        delta = Delta(role="assistant", content="")
        return self._chunk([ChunkChoice(index=index, delta=delta, logprobs=None, finish_reason=None)])

    def whole(self, pieces: Sequence[Piece], usage: Usage) -> str:
        choices = [
            ChatChoice(
                index=piece.index,
                message=Said(role="assistant", content=piece.text),
                logprobs=self._table(piece),
                finish_reason=piece.finished,
                **self._extras(piece),
            )
            for piece in pieces
        ]
        answer = ChatCompletion(object="chat.completion", choices=choices, usage=usage, **self._head)
        return answer.model_dump_json(exclude_unset=True)

    def chunk(self, piece: Piece) -> str:
        choice = ChunkChoice(
            index=piece.index,
            delta=Delta(content=piece.text),
            logprobs=self._table(piece),
            finish_reason=piece.finished,
            **self._extras(piece),
        )
        return self._chunk([choice])

    def last(self, usage: Usage) -> str | None:
        return self._chunk([], usage=usage) if self._counts else None

    def _chunk(self, choices: list[ChunkChoice], **more: Any) -> str:
        more = more or self._pending()
        chunk = ChatChunk(object="chat.completion.chunk", choices=choices, **self._head, **more)
        return chunk.model_dump_json(exclude_unset=True)

    def _table(self, piece: Piece) -> ChatLogprobs | None:
        if not self._logprobs:
            return None
        return ChatLogprobs(content=[self._row(*each) for each in zip(piece.tokens, piece.logprobs, strict=True)])

    def _row(self, token: int, known: TokenLogprobs) -> TokenLogprob:
        top = [self._top(each, value) for each, value in known.top]
        return TokenLogprob(**self._top(token, known.chosen).model_dump(), top_logprobs=top)

    def _top(self, token: int, value: float) -> TopLogprob:
        text, data = self._words.token(token)
        return TopLogprob(token=text, logprob=value, bytes=data)


def usage_of(prompts: Sequence[Sequence[int]], pieces: Sequence[Piece]) -> Usage:
    """What the choices of these prompts came to, as many of each."""
    prompt_tokens = sum(map(len, prompts))
    firsts = pieces[:: len(pieces) // len(prompts)]
    depth = [each for piece in pieces for each in piece.depth]
    return Usage(
        prompt_tokens=prompt_tokens,
        completion_tokens=len(depth),
        total_tokens=prompt_tokens + len(depth),
        prompt_tokens_details=PromptDetails(cached_tokens=sum(piece.reused for piece in firsts)),
        mean_depth=sum(depth) / len(depth) if depth else 0.0,
        loops=sum(depth),
    )
