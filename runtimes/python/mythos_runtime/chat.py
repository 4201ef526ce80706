"""Conversations as prompts, by the Jinja template that came with the model (the optional `jinja2` library).

    >>> render(template, [{"role": "user", "content": "Hello"}], {"bos_token": "<s>"})
    '<s>[INST] Hello [/INST]'

A template is a stranger's program: it runs in Jinja's immutable sandbox, which reaches neither Python's internals nor
anything outside it, and in a process of its own (template_worker.py) that may take neither long nor much memory.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mythos_runtime.errors import BackendMissing, BundleError, RequestError
from mythos_runtime.files import locate
from mythos_runtime.tokenizer_entry import TokenizerEntry

if TYPE_CHECKING:
    from mythos_runtime.model import Model

SECONDS = 10.0  # for a conversation
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
    if importlib.util.find_spec("jinja2") is None:
        raise BackendMissing("a chat template needs Jinja: pip install jinja2")
    values = {"messages": [dict(m) for m in messages], "add_generation_prompt": answer_begins, **special_tokens}
    answer = _worker.ask({"template": template, "values": values})
    if "syntax" in answer:
        raise RequestError(f"the chat template is not valid Jinja, line {answer['line']}: {answer['syntax']}")
    if "refused" in answer:
        raise RequestError(f"the chat template refuses this conversation: {answer['refused']}")
    return str(answer["text"])


class _Worker:
    """template_worker.py in a process of its own, which is started when it is first needed, and stays."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._owner = 0

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            process = self._running()
            assert process.stdin is not None and process.stdout is not None
            late = threading.Timer(SECONDS, process.kill)
            late.start()
            try:
                process.stdin.write(json.dumps(request) + "\n")
                process.stdin.flush()
                line = process.stdout.readline()
            except BrokenPipeError:
                line = ""
            finally:
                late.cancel()
            if line:
                answer: dict[str, Any] = json.loads(line)
                return answer
            process.kill()
            process.wait()
            return {"refused": f"it took longer than {SECONDS:g} s, or more memory than it may have"}

    def _running(self) -> subprocess.Popen[str]:
        process = self._process
        if process is None or process.poll() is not None or self._owner != os.getpid():  # a fork's is its parent's
            # The same packages as here, whatever this process did to its path.
            variables = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONUTF8": "1"}
            process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("template_worker.py"))],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8", env=variables,
            )  # fmt: skip
            self._process, self._owner = process, os.getpid()
            assert process.stdout is not None
            process.stdout.readline()  # it has begun; time counts from here
        return process


_worker = _Worker()
