"""What a bundle says of its text: the manifest's field `tokenizer`.

    kind            "bytes", "tokenizer.json", or "ids": no text, ids go in and out
    file            the tokenizer.json in the bundle; null for the other kinds
    eos             [ids] that end a generation
    bos             the id that begins a text, or null
    chat_template   the Jinja template in the bundle that makes a prompt of a conversation, or null
    special_tokens  {name: text} that the template may ask for, such as bos_token
    defaults        {name: number} of a generation: temperature, top_k, top_p, min_p, repetition_penalty, max_new_tokens
    sources         {field: text} which file or option each of these came from, for people

Only kind has to be there. Whoever generates needs kind, file and eos.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field
from typing import Any

from mythos_runtime.fields import MAX_INTEGER, Fields

BYTES, JSON, IDS = "bytes", "tokenizer.json", "ids"
TOKENIZER_KINDS = (BYTES, JSON, IDS)
DEFAULTS = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "max_new_tokens")
_WHOLE = ("top_k", "max_new_tokens")


@dataclass(frozen=True)
class TokenizerEntry:
    """How text becomes ids and ends; see the module's docstring for the fields."""

    kind: str
    file: str | None = None
    eos: tuple[int, ...] = ()
    bos: int | None = None
    chat_template: str | None = None
    special_tokens: dict[str, str] = field(default_factory=dict)
    defaults: dict[str, float] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The JSON object that `read_tokenizer` reads back to an equal entry; what is empty is left out."""
        optional: dict[str, Any] = {
            "eos": list(self.eos),
            "bos": self.bos,
            "chat_template": self.chat_template,
            "special_tokens": self.special_tokens,
            "defaults": self.defaults,
            "sources": self.sources,
        }
        kept = {name: value for name, value in optional.items() if value not in (None, [], {})}
        return {"kind": self.kind, "file": self.file, **kept}


def read_tokenizer(top: Fields, files: Container[str]) -> TokenizerEntry | None:
    """Take the field `tokenizer` of a manifest that lists `files`; None where it is null or absent (BundleError)."""
    if top.peek("tokenizer") is None:
        top.take("tokenizer", None)
        return None
    fields = top.inner("tokenizer")
    kind, file = fields.choice("kind", TOKENIZER_KINDS), fields.optional_text("file")
    if kind != JSON and file is not None:
        raise fields.fail("file", f"null for the kind {kind}", file)
    if kind == JSON and file not in files:
        raise fields.fail("file", "a path that the field files has too", file)
    template = fields.optional_text("chat_template")
    if template is not None and template not in files:
        raise fields.fail("chat_template", "a path that the field files has too", template)
    entry = TokenizerEntry(
        kind,
        file,
        eos=_ids(fields),
        bos=None if fields.peek("bos") is None else fields.integer("bos"),
        chat_template=template,
        special_tokens=_texts(fields, "special_tokens"),
        defaults=_defaults(fields),
        sources=_texts(fields, "sources"),
    )
    fields.take("bos", None)
    fields.done()
    return entry


def _ids(fields: Fields) -> tuple[int, ...]:
    if "eos" not in fields.names():
        return ()
    ids = fields.listed("eos")
    for value in ids:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_INTEGER:
            raise fields.fail("eos", "a list of ids", value)
    return tuple(ids)


def _texts(fields: Fields, name: str) -> dict[str, str]:
    texts = fields.mapping(name, {})
    for value in texts.values():
        if not isinstance(value, str):
            raise fields.fail(name, "an object of texts", value)
    return texts


def _defaults(fields: Fields) -> dict[str, float]:
    if "defaults" not in fields.names():
        return {}
    inner = fields.inner("defaults")
    known = [name for name in inner.names() if name in DEFAULTS]
    found = {name: inner.integer(name) if name in _WHOLE else inner.number(name) for name in known}
    inner.done()
    return found
