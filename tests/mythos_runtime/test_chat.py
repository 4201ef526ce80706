"""Chat templates: rendered as they were written for, and kept inside their sandbox."""

from __future__ import annotations

import pytest

from mythos_runtime import RequestError, chat
from mythos_runtime.chat import render

CHATML = """{%- for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}"""
ASKED = [{"role": "user", "content": '2 < 3 & "it\'s"?'}]


def test_chatml() -> None:
    begun = '<|im_start|>user\n2 < 3 & "it\'s"?<|im_end|>\n'
    assert render(CHATML, ASKED, {}) == begun + "<|im_start|>assistant\n"
    assert render(CHATML, ASKED, {}, answer_begins=False) == begun


def test_what_templates_use_of_their_surroundings() -> None:
    template = """{{ bos_token }}{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}
        {% generation %}{{ m | tojson }}{% endgeneration %}
{% endfor %}{{ strftime_now('%Y')[:1] }}"""
    assert render(template, [*ASKED, *ASKED], {"bos_token": "<s>"}) == (
        '<s>{"role": "user", "content": "2 < 3 & \\"it\'s\\"?"}2'
    )


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ raise_exception('roles must alternate') }}", "refuses this conversation: roles must alternate"),
        ("{% if %}", "not valid Jinja, line 1"),
        ("{{ 1 / 0 }}", "refuses this conversation: division by zero"),
        ("{{ messages.append(1) }}", "refuses this conversation"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "refuses this conversation"),
        ("{{ cycler.__init__.__globals__.os.system('true') }}", "refuses this conversation"),
        ("{% include '/etc/passwd' %}", "refuses this conversation"),
    ],
)
def test_a_template_that_cannot_or_must_not_is_one_line(template: str, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        render(template, ASKED, {})


@pytest.mark.parametrize(
    "template",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{{ 'a' * 10 ** 10 }}",
        "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    ],
)
def test_a_template_takes_neither_long_nor_much_memory(template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "SECONDS", 2.0)
    with pytest.raises(RequestError, match="refuses this conversation: it t(ook longer|akes more)"):
        render(template, ASKED, {})
    assert render("{{ messages | length }}", ASKED, {}) == "1"  # the next one is served
