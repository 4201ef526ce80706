"""Text to ids and back: bytes built in, `tokenizer.json` through the optional `tokenizers` library.

What a text becomes: its own tokens, all of them (a `tokenizer.json` that was saved with truncation or padding keeps
neither), and around them what the file's post-processor adds, such as a BOS: that is how the model saw texts in
training, and what `transformers` does by default. With `special=False` these are left out: a chat template writes the
special tokens of a conversation itself. A special token that is written out in a text is that token.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from mythos_runtime.errors import BackendMissing, BundleError, RequestError
from mythos_runtime.files import locate
from mythos_runtime.manifest import Manifest
from mythos_runtime.tokenizer_entry import BYTES, JSON

_MOST_PENDING = 64  # tokens that a stream may hold back; a character has four bytes at most


class TextStream(Protocol):
    """Ids in, one by one; the text that has become certain with each comes out. Each costs the same."""

    def feed(self, token: int) -> str:
        """The text that this id completes; "" in the middle of a character."""
        ...

    def finish(self) -> str:
        """What is left at the end: U+FFFD for a character that was never finished, "" otherwise."""
        ...


class Tokenizer(Protocol):
    """What the runtime needs of a tokenizer."""

    def encode(self, text: str, special: bool = True) -> list[int]:
        """The ids of a text; `special`: with what the post-processor adds. RequestError for text that is not UTF-8."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; special tokens and ids that are no token have none."""
        ...

    def stream(self) -> TextStream:
        """A decoder for ids that come one by one."""
        ...


def check_utf8(text: str, what: str = "the prompt") -> bytes:
    """The UTF-8 of a text. Python holds bytes of the command line that are none as lone surrogates: RequestError."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        at = len(text[: error.start].encode("utf-8"))
        code = ord(text[error.start])
        found = f"byte {code - 0xDC00:#04x}" if 0xDC80 <= code <= 0xDCFF else f"the lone surrogate {code:#06x}"
        raise RequestError(f"{what} is not UTF-8: {found} at {at}") from None


class ByteTokenizer:
    """Ids 0 to 255 are the bytes of UTF-8; larger ids are no text."""

    def __init__(self, vocab_size: int) -> None:
        if vocab_size < 256:
            raise BundleError(f"the byte tokenizer needs a vocabulary of at least 256 ids, this model has {vocab_size}")

    def encode(self, text: str, special: bool = True) -> list[int]:
        return list(check_utf8(text))

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(token for token in ids if 0 <= token < 256).decode("utf-8", errors="replace")

    def stream(self) -> TextStream:
        return _ByteStream()


class _ByteStream:
    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, token: int) -> str:
        return self._decoder.decode(bytes([token])) if 0 <= token < 256 else ""

    def finish(self) -> str:
        return self._decoder.decode(b"", final=True)


class JsonTokenizer:
    """A `tokenizer.json` of the Hugging Face tokenizers library."""

    def __init__(self, path: Path, vocab_size: int) -> None:
        """Read the file.

        Raises:
            BackendMissing: the library is not installed.
            BundleError: the file cannot be read.
            RequestError: it has ids that the model's vocabulary does not.
        """
        try:
            import tokenizers
        except ImportError as error:
            raise BackendMissing(f"{path.name} needs the tokenizers library: pip install tokenizers") from error
        if not path.is_file():  # a pipe or a device would be read for ever
            raise BundleError(f"{path} is no regular file, expected a tokenizer.json")
        try:
            self._tokenizer: Any = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises plain Exception
            raise BundleError(f"{path} is not a readable tokenizer.json: {error}") from error
        self._tokenizer.no_truncation()  # as training left them in the file; a prompt is never cut
        self._tokenizer.no_padding()
        self._streams: Any = tokenizers.decoders.DecodeStream
        ids = self._tokenizer.get_vocab(with_added_tokens=True).values()
        if ids and max(ids) >= vocab_size:
            raise RequestError(
                f"{path.name} has ids up to {max(ids)}, the model's vocabulary ends at {vocab_size - 1}: it is another "
                "model's"
            )

    def encode(self, text: str, special: bool = True) -> list[int]:
        check_utf8(text)
        return list(self._tokenizer.encode(text, add_special_tokens=special).ids)

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids)))

    def stream(self) -> TextStream:
        return _JsonStream(self)

    def id_of(self, token: str) -> int | None:
        """The id of a token that is written so; None where there is none."""
        found: int | None = self._tokenizer.token_to_id(token)
        return found

    def special_texts(self) -> dict[str, int]:
        """The special tokens, with their ids."""
        tokens = self._tokenizer.get_added_tokens_decoder()
        return {token.content: number for number, token in tokens.items() if token.special}


class _JsonStream:
    """The library's own stream, and the tail that it holds back while a character is unfinished."""

    def __init__(self, tokenizer: JsonTokenizer) -> None:
        self._tokenizer = tokenizer
        self._pending: list[int] = []
        self._restart()

    def feed(self, token: int) -> str:
        self._pending.append(token)
        try:
            text = self._steps.step(self._tokenizer._tokenizer, token)
        except Exception as error:  # plain, as all of the library's
            # Broken bytes after whole characters can make byte-fallback decoders read those otherwise; what was shown
            # stays, and the stream begins anew with what came since.
            if "Invalid prefix" not in str(error):
                raise
            return self.finish()
        if text is None:
            return self.finish() if len(self._pending) >= _MOST_PENDING else ""
        self._pending.clear()
        return str(text)

    def finish(self) -> str:
        text = self._tokenizer.decode(self._pending)
        self._pending.clear()
        self._restart()
        return text

    def _restart(self) -> None:
        self._steps = self._tokenizer._streams(skip_special_tokens=True)


def load_tokenizer(folder: Path, manifest: Manifest, vocab_size: int) -> Tokenizer | None:
    """The tokenizer that a manifest names; None where it names none."""
    entry = manifest.tokenizer
    if entry is not None and entry.kind == BYTES:
        return ByteTokenizer(vocab_size)
    if entry is not None and entry.kind == JSON:
        assert entry.file is not None  # the manifest's reader has checked it
        return JsonTokenizer(locate(folder, entry.file), vocab_size)
    return None
