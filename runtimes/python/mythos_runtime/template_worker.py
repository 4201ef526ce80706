"""Renders chat templates in a process of its own, which may take neither long nor much memory (chat.py asks it).

A line on stdout when it has begun; then one request a line on stdin, {"template", "values"}, and one answer a line on
stdout, {"text"}, {"syntax", "line"} or {"refused"}. It runs by its path and imports nothing of this package. Settings,
globals and filters are those that such templates are written for (transformers').
"""

from __future__ import annotations

import datetime
import functools
import json
import sys
from typing import Any

import jinja2
import jinja2.ext
import jinja2.sandbox

MEMORY_BYTES = 1 << 29
MOST_TEXT = 1 << 24  # characters of an answer


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


def environment() -> jinja2.Environment:
    made = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols, Generation]
    )
    made.filters["tojson"] = tojson
    made.globals["raise_exception"] = refuse
    made.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    return made


@functools.lru_cache(maxsize=4)
def compiled(template: str) -> jinja2.Template:
    return environment().from_string(template)


def answer(request: dict[str, Any]) -> dict[str, Any]:
    try:
        text = str(compiled(request["template"]).render(**request["values"]))
    except jinja2.TemplateSyntaxError as error:
        return {"syntax": str(error.message), "line": error.lineno}
    except MemoryError:
        return {"refused": f"it takes more than {MEMORY_BYTES >> 20} MB of memory"}
    except Exception as error:  # of the stranger's program; its own refusals are TemplateErrors
        return {"refused": str(error) or type(error).__name__}
    if len(text) > MOST_TEXT:
        return {"refused": f"its text has {len(text)} characters, more than {MOST_TEXT}"}
    return {"text": text}


def main() -> None:
    try:
        import resource
    except ImportError:  # Windows: only the time is bounded
        pass
    else:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    print("{}", flush=True)  # begun
    for line in sys.stdin:
        sys.stdout.write(json.dumps(answer(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
