"""Chat templates in the ways that released models write theirs, and conversations for them."""

from __future__ import annotations

CHATML = """{% if messages[0]['role'] != 'system' %}
    {{- '<|im_start|>system\\nYou are helpful.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

HEADERS = """{{ bos_token }}{% for message in messages -%}
    {% set role = 'Huginn' if message.role == 'assistant' else message['role'] %}
    {{- '<|begin_header|>' ~ role ~ '<|end_header|>\\n\\n' ~ message['content'] | trim ~ '<|end_turn|>' -}}
{% endfor %}
{% if add_generation_prompt %}{{ '<|begin_header|>Huginn<|end_header|>\\n\\n' }}{% endif %}"""

INSTRUCTIONS = """{{- bos_token }}
{%- if messages[0].role == 'system' -%}
    {%- set system = messages[0].content %}{% set rest = messages[1:] %}
{%- else -%}
    {%- set rest = messages %}
{%- endif %}
{%- for m in rest %}
    {%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('roles must alternate: user, assistant, ' ~ m.role) }}
    {%- endif %}
    {%- if m.role == 'user' %}
        {%- if loop.last and system is defined %}
            {{- '[INST] ' + system + '\\n\\n' + m.content + ' [/INST]' }}
        {%- else %}
            {{- '[INST] ' + m.content + ' [/INST]' }}
        {%- endif %}
    {%- else %}
        {{- ' ' + m.content.strip() + eos_token }}
    {%- endif %}
{%- endfor %}"""

THINKING = """{%- macro words(said) %}{% if said is string %}{{ said }}{% else %}{{ said | tojson }}{% endif %}
{%- endmacro %}
{%- set ns = namespace(last=-1, turns=0) %}
{%- for message in messages[::-1] %}
    {%- if ns.last < 0 and message.role == 'user' %}{% set ns.last = messages | length - 1 - loop.index0 %}{% endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content %}
    {%- if message.role == 'assistant' %}
        {%- if '</think>' in content %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- generation %}{{- '<|assistant|>\\n' + content.rstrip() }}{% endgeneration %}
    {%- else %}
        {{- '<|' + message['role'].upper() + '|>\\n' + words(content) }}
    {%- endif %}
    {%- if loop.index0 == ns.last %}{{- ' (' ~ ns.last ~ ')' }}{% endif %}
    {%- if not loop.last and loop.nextitem.role != message.role %}{{- '\\n' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt and not (enable_thinking is defined and enable_thinking) %}
    {{- '\\n<|assistant|>\\n' }}
{%- endif %}"""

EVERYTHING = """{% for m in messages %}{% if loop.index > 4 %}{% break %}{% endif %}
{{ m | tojson }} {{ m | tojson(indent=2) }} {{ m.keys() | list }} {{ m.get('name', 'nobody') }} {{ m.get('x') }}
{% for key, value in m.items() %}{{ key }}={{ value | length }}{{ ', ' if not loop.last }}{% endfor %}

  {% set text = m.content %}
{{ [text.title(), text.capitalize(), text.lower(), text.count('a'), text.find('a'), text.isdigit(), 1.5, none, true] }}
{{ text.replace('a', '-', 1) }} {{ text.split() }} {{ text.split(' ', 1) }} {{ text.split('a') }}
{{ text.splitlines() }}
{{ ','.join(['x', 'y']) }} {{ text.startswith(('a', 'W')) }} {{ text.endswith('?') }} {{ text.rstrip('?!') }}
{{ text.strip() }}
{{ undefined_name }}{{ m.nothing }}{{ 'x' if false else m.role | string }} {{ (loop.index * 2) ~ '' }} {{ text[:3] }}
{% endfor %}{{ strftime_now('%Y') | length }} {{ {'b': [1, 'it\\'s'], 'a': none} }}
"""

TEMPLATES = {
    "chatml": CHATML,
    "headers": HEADERS,
    "instructions": INSTRUCTIONS,
    "thinking": THINKING,
    "everything": EVERYTHING,
}


def said(*texts: str, system: str | None = None) -> list[dict[str, str]]:
    """A conversation whose user begins."""
    begun = [] if system is None else [{"role": "system", "content": system}]
    turns = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]
    return [*begun, *turns]


CONVERSATIONS = [
    said("Why?"),
    said('2 < 3 & "it\'s"?', system="Be brief."),
    said("  What a day \n", "<think>\nwell</think>\n\nIndeed. ", "and then?", system="  é漢\U0001f467\x1f  "),
    said("", "", "a\r\nb\tc  d", "  ", "last\n\n"),
    [*said("one"), *said("two")],  # the user twice
]
