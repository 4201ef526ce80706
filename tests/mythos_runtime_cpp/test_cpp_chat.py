"""Chat templates in C++: the text that Python makes of them, over templates and conversations of every kind."""

from __future__ import annotations

import ctypes as c
import json
import shutil
from pathlib import Path

import pytest
from chat_templates import CONVERSATIONS, TEMPLATES
from cpp_programs import BUILD, RUN, cpp, needs_cpp
from golden_bundles import Bundles
from test_c_interface import Library, array
from text_bundles import TEMPLATE, change_template, speaking_copy

from mythos_runtime import RequestError, load
from mythos_runtime.chat import render

pytest.importorskip("jinja2", reason="jinja2 is not installed: pip install jinja2")
TOKENIZER = BUILD / "libmythos_tokenizer.so"
needs_library = pytest.mark.skipif(not TOKENIZER.exists(), reason="libmythos_tokenizer is not built: make tokenizer")
pytestmark = needs_cpp
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}


def said_by_cpp(bundle: Path, conversation: list[dict[str, str]]) -> str:
    """The text, or what is wrong."""
    library = Library(bundle)
    words = [array([message[part].encode() for message in conversation], c.c_char_p) for part in ("role", "content")]
    ids, count = (c.c_int64 * 20000)(), c.c_size_t()
    try:
        library.call("mythos_encode_chat", library.model, *words, len(conversation), ids, len(ids), c.byref(count))
    except RuntimeError as error:
        return str(error.args[1])
    return bytes(ids[: count.value]).decode()


def said_by_python(template: str, conversation: list[dict[str, str]]) -> str:
    try:
        return render(template, conversation, SPECIAL)
    except RequestError as error:
        return str(error)


@needs_library
@pytest.mark.slow
@pytest.mark.parametrize("name", TEMPLATES)
def test_the_text_that_python_makes(name: str, bundles: Bundles, tmp_path: Path) -> None:
    bundle = change_template(speaking_copy(bundles["hops"], tmp_path / "bundle"), TEMPLATES[name], SPECIAL)
    for conversation in CONVERSATIONS:
        assert said_by_cpp(bundle, conversation) == said_by_python(TEMPLATES[name], conversation), conversation


@needs_library
@pytest.mark.slow
@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ raise_exception('roles must alternate') }}", "refuses this conversation: roles must alternate"),
        ("{% if %}", "is not valid Jinja, line 1: "),
        ("a\n{{ messages.append(1) }}", "refuses this conversation: "),
        ("{{ ''.__class__.__mro__ }}{{ messages.pop() }}", "refuses this conversation: "),
        ("{% include '/etc/passwd' %}", "refuses this conversation: "),
        ("{{ 'a' * 10 ** 10 }}", "refuses this conversation: it took longer than 10 s, or more memory"),
        (
            "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
            "more memory",
        ),
    ],
)
def test_a_template_that_cannot_or_must_not_is_one_line(
    template: str, words: str, bundles: Bundles, tmp_path: Path
) -> None:
    bundle = change_template(speaking_copy(bundles["hops"], tmp_path / "bundle"), template, SPECIAL)
    found = said_by_cpp(bundle, CONVERSATIONS[0])
    assert words in found and "\n" not in found


@needs_library
@pytest.mark.slow
def test_the_program_chats_as_mythos_run_does(bundles: Bundles, tmp_path: Path) -> None:
    bundle = speaking_copy(bundles["hops"], tmp_path / "bundle")
    asked = cpp(RUN, bundle, "--chat", "--system", "be brief", "--prompt", "why?", "--max-new-tokens", "5", "--json")
    assert asked.returncode == 0, asked.stderr
    prompt = "[system] be brief\n[user] why?\n[assistant] "
    assert TEMPLATE.endswith("[assistant] ")
    of_python = load(bundle, op_library=None, engine="python")
    expected = of_python.generate_all([list(prompt.encode())], max_new_tokens=5).tokens[0]
    assert json.loads(asked.stdout.splitlines()[-1])["tokens"] == expected


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--ids", "1", "--chat"], "--chat makes a prompt of text: give --prompt or --file instead of --ids"),
        (["--prompt", "x", "--system", "y"], "--system is a message of a conversation: give --chat too"),
    ],
)
def test_options_that_do_not_go_together(arguments: list[str], words: str, bundles: Bundles) -> None:
    asked = cpp(RUN, bundles["hops"], *arguments)
    assert (asked.returncode, asked.stderr.splitlines()[-1]) == (2, f"error: {words}")


def test_without_a_template_or_the_library_it_says_so(bundles: Bundles, tmp_path: Path) -> None:
    bundle = speaking_copy(bundles["hops"], tmp_path / "bundle")
    nowhere = cpp(
        RUN, bundle, "--chat", "--prompt", "x", env={"MYTHOS_TOKENIZER": "/nowhere", "MYTHOS_OP_LIBRARY": "none"}
    )
    assert nowhere.returncode == 3 and "make tokenizer" in nowhere.stderr
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["tokenizer"]["chat_template"] = None
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    asked = cpp(RUN, bundle, "--chat", "--prompt", "x")
    assert asked.returncode == 2 and "error: this bundle has no chat template" in asked.stderr
    shutil.rmtree(bundle)
