"""Text to ids and back: bytes built in, `tokenizer.json` through the optional `tokenizers` library."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from mythos_runtime.errors import BackendMissing, BundleError, RequestError
from mythos_runtime.files import locate
from mythos_runtime.manifest import Manifest


class Tokenizer(Protocol):
    """What the runtime needs of a tokenizer."""

    def encode(self, text: str) -> list[int]:
        """The ids of a text."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids."""
        ...

    def stream(self) -> Callable[[int], str]:
        """A function that takes ids one by one and returns the text that has become certain with each."""
        ...


class ByteTokenizer:
    """Ids 0 to 255 are the bytes of UTF-8; larger ids are no text."""

    def __init__(self, vocab_size: int) -> None:
        if vocab_size < 256:
            raise BundleError(f"the byte tokenizer needs a vocabulary of at least 256 ids, this model has {vocab_size}")

    def encode(self, text: str) -> list[int]:
        return list(text.encode("utf-8"))

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(token for token in ids if 0 <= token < 256).decode("utf-8", errors="replace")

    def stream(self) -> Callable[[int], str]:
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        return lambda token: decoder.decode(bytes([token])) if 0 <= token < 256 else ""


class JsonTokenizer:
    """A `tokenizer.json` of the Hugging Face tokenizers library."""

    def __init__(self, path: Path, vocab_size: int) -> None:
        try:
            import tokenizers
        except ImportError as error:
            raise BackendMissing(f"{path.name} needs the tokenizers library: pip install tokenizers") from error
        try:
            self._tokenizer: Any = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises plain Exception
            raise BundleError(f"{path} is not a readable tokenizer.json: {error}") from error
        largest = self._tokenizer.get_vocab_size(with_added_tokens=True)
        if largest > vocab_size:
            raise RequestError(
                f"{path.name} has {largest} tokens, the model's vocabulary only {vocab_size}: it is another model's"
            )

    def encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text).ids)

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids)))

    def stream(self) -> Callable[[int], str]:
        seen: list[int] = []
        shown = ""

        def feed(token: int) -> str:
            nonlocal shown
            seen.append(token)
            text = self.decode(seen)
            if text.endswith("\ufffd"):  # half a character: wait for the rest
                return ""
            new, shown = text[len(shown) :], text
            return new

        return feed


def load_tokenizer(folder: Path, manifest: Manifest, vocab_size: int) -> Tokenizer | None:
    """The tokenizer that a manifest names; None where it names none."""
    entry = manifest.tokenizer
    if entry is None:
        return None
    if entry.kind == "bytes":
        return ByteTokenizer(vocab_size)
    assert entry.file is not None  # the manifest's reader has checked it
    return JsonTokenizer(locate(folder, entry.file), vocab_size)
