"""Conversations as prompts, by the Jinja template that came with the model (the optional `jinja2` library).

    >>> render(template, [{"role": "user", "content": "Hello"}], {"bos_token": "<s>"})
    '<s>[INST] Hello [/INST]'

A template is a stranger's program: it runs in Jinja's immutable sandbox, which reaches neither Python's internals nor
anything outside it. Settings, globals and filters are those that such templates are written for (transformers').
"""

from __future__ import annotations

import datetime
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mythos_runtime.errors import BackendMissing, BundleError, RequestError
from mythos_runtime.files import locate
from mythos_runtime.tokenizer_entry import TokenizerEntry

if TYPE_CHECKING:
    from mythos_runtime.model import Model

Message = Mapping[str, str]  # {"role": "system" | "user" | "assistant", "content": text}
NO_TOKENIZER = "this bundle has no tokenizer, so it cannot chat; export it with --tokenizer"
NO_TEMPLATE = (
    "this bundle has no chat template: give a prompt as the model was trained to see it, or export it from a folder "
    "with a chat_template.jinja or a tokenizer_config.json"
)


def encode_chat(model: Model, messages: Sequence[Message]) -> list[int]:
    """The ids of a conversation and of the words with which the model's answer begins.

    Raises:
        RequestError: the bundle has no tokenizer or no template, or the template refuses the conversation.
        BackendMissing: jinja2 is not installed.
    """
    entry = model.manifest.tokenizer if model.manifest is not None else None
    if entry is None or model.folder is None or model.tokenizer is None:
        raise RequestError(NO_TOKENIZER)
    template = read_template(model.folder, entry)
    if template is None:
        raise RequestError(NO_TEMPLATE)
    return model.tokenizer.encode(render(template, messages, entry.special_tokens), special=False)


def read_template(folder: Path, entry: TokenizerEntry) -> str | None:
    """The bundle's chat template; None where it has none (BundleError where it cannot be read)."""
    if entry.chat_template is None:
        return None
    try:
        return locate(folder, entry.chat_template).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{folder}: the chat template {entry.chat_template} cannot be read: {error}") from error


def render(
    template: str, messages: Sequence[Message], special_tokens: Mapping[str, str], answer_begins: bool = True
) -> str:
    """The text of a conversation; `answer_begins`: with the words that open the model's turn. Errors as `encode_chat`.

    `special_tokens` are names such as bos_token that the template may use, and their texts.
    """
    try:
        import jinja2
    except ImportError as error:
        raise BackendMissing("a chat template needs Jinja: pip install jinja2") from error
    try:
        compiled = _compiled(template)
        conversation = [dict(message) for message in messages]
        return str(compiled.render(messages=conversation, add_generation_prompt=answer_begins, **special_tokens))
    except jinja2.TemplateSyntaxError as error:
        raise RequestError(f"the chat template is not valid Jinja, line {error.lineno}: {error.message}") from error
    except Exception as error:  # of the stranger's program; its own refusals are TemplateErrors
        raise RequestError(
            f"the chat template refuses this conversation: {str(error) or type(error).__name__}"
        ) from error


@functools.lru_cache(maxsize=4)
def _compiled(template: str) -> Any:
    return _environment().from_string(template)


def _environment() -> Any:
    import jinja2
    import jinja2.ext
    import jinja2.sandbox

    class Generation(jinja2.ext.Extension):
        """`{% generation %}` marks what training learns from; a prompt takes it as it is."""

        tags = {"generation"}

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    def tojson(
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols, Generation]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    return environment
