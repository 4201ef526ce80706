"""What a bundle says of text, read once: its tokenizer, its chat template, where a text ends, and its defaults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mythos_runtime import chat
from mythos_runtime.errors import RequestError
from mythos_runtime.manifest import Manifest
from mythos_runtime.tokenizer import ByteTokenizer, TextStream, Tokenizer, load_tokenizer
from mythos_runtime.tokenizer_entry import TokenizerEntry

_REPLACEMENT = "\ufffd"


class _NoText:
    """Of a bundle without a tokenizer: ids stay ids."""

    def feed(self, token: int) -> str:
        return ""

    def finish(self) -> str:
        return ""


@dataclass(frozen=True)
class Words:
    """Text in and out. Without a tokenizer ids go in and out, and no text comes out."""

    tokenizer: Tokenizer | None
    template: str | None
    entry: TokenizerEntry = field(default_factory=lambda: TokenizerEntry("ids"))

    @classmethod
    def of(cls, folder: Path, manifest: Manifest) -> Words:
        """A bundle's. Raises as `load_tokenizer` and `chat.read_template`."""
        entry = manifest.tokenizer or TokenizerEntry("ids")
        tokenizer = load_tokenizer(folder, manifest, manifest.spec.vocab_size)
        return cls(tokenizer, chat.read_template(folder, entry), entry)

    def encode(self, text: str) -> list[int]:
        """The ids of a prompt (RequestError)."""
        if self.tokenizer is None:
            raise RequestError("this bundle has no tokenizer: give the prompt as a list of ids")
        return self.tokenizer.encode(text)

    def encode_chat(self, messages: Sequence[chat.Message]) -> list[int]:
        """The ids of a conversation and of the words with which the answer begins (RequestError)."""
        if self.tokenizer is None:
            raise RequestError(chat.NO_TOKENIZER)
        if self.template is None:
            raise RequestError(chat.NO_TEMPLATE)
        return self.tokenizer.encode(chat.render(self.template, messages, self.entry.special_tokens), special=False)

    def stream(self) -> TextStream:
        """A decoder for ids that come one by one."""
        return _NoText() if self.tokenizer is None else self.tokenizer.stream()

    def token(self, token: int) -> tuple[str, list[int] | None]:
        """A token by itself: its text, and its bytes where they are known."""
        if self.tokenizer is None:
            return f"id:{token}", None
        if isinstance(self.tokenizer, ByteTokenizer) and token < 256:
            return (chr(token) if token < 128 else f"bytes:\\x{token:02x}"), [token]
        text = self.tokenizer.decode([token])
        if _REPLACEMENT in text:
            return f"id:{token}", None
        return text, list(text.encode())
