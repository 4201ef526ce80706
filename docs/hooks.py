"""What the site has beyond the pages in this folder; mkdocs calls it (mkdocs.yml).

- A link out of docs/ to a file of the repository, such as `../CONTRIBUTING.md`, leads to a copy of it in the site, in
  `repository/`. A link to a file that is not there stays as it is, and mkdocs refuses it.
- `<!-- commands -->` becomes the help of every command, `<!-- headers -->` the C and C++ headers.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from mythos_export.cli import export_command, mythos

ROOT = Path(__file__).parents[1]
PLACE = "repository"
HEADERS = ("mythos_runtime.hpp", "mythos_engine.hpp", "mythos_spec.hpp", "mythos_runtime.h", "mythos_engine.h")
_LINK = re.compile(r"(\]\()([^)#\s]+)((?:#[^)\s]*)?\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The pages, and every file of the repository that a page links to, or one of those."""
    todo = [file.src_uri for file in files if file.src_uri.endswith(".md")]
    seen = set(todo)
    while todo:
        for target in _links(todo.pop()):
            if target not in seen:
                seen.add(target)
                todo += [target] if target.endswith(".md") else []
                files.append(File.generated(config, target, abs_src_path=str(_source(target))))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """A page's text, with its links led to the copies."""
    here = page.file.src_uri

    def led(found: re.Match[str]) -> str:
        target = _target(here, found[2])
        return found[0] if target is None else found[1] + posixpath.relpath(target, posixpath.dirname(here)) + found[3]

    markdown = _LINK.sub(led, markdown)
    if "<!-- commands -->" in markdown:
        markdown = markdown.replace("<!-- commands -->", _commands())
    return markdown.replace("<!-- headers -->", _headers()) if "<!-- headers -->" in markdown else markdown


def _source(page: str) -> Path:
    """The file of a page or a copy."""
    return ROOT / page.removeprefix(f"{PLACE}/") if page.startswith(f"{PLACE}/") else ROOT / "docs" / page


def _links(page: str) -> list[str]:
    found = (_target(page, link[2]) for link in _LINK.finditer(_source(page).read_text(encoding="utf-8")))
    return [target for target in found if target is not None and target.startswith(f"{PLACE}/")]


def _target(page: str, link: str) -> str | None:
    """Where a relative link of a page leads in the site; None where mkdocs finds it by itself, or it leads nowhere."""
    if "://" in link or link.startswith(("/", "mailto:")):
        return None
    path = Path(posixpath.normpath(_source(page).parent / link))
    if not path.is_file() or not path.is_relative_to(ROOT):
        return None
    name = path.relative_to(ROOT).as_posix()
    return name.removeprefix("docs/") if name.startswith("docs/") else f"{PLACE}/{name}"


def _commands() -> str:
    """The help of both programs, and of every command of theirs."""
    parts: list[str] = []
    for name, command in (("mythos-export", export_command), ("mythos", mythos)):
        _describe(name, command, None, parts)
    return "\n".join(parts)


def _describe(name: str, command: click.Command, parent: click.Context | None, parts: list[str]) -> None:
    context = click.Context(command, info_name=name.rpartition(" ")[2], parent=parent, max_content_width=100)
    parts += [f"## {name}\n", f"```text\n{command.get_help(context)}\n```\n"]
    if isinstance(command, click.Group):
        for each in command.list_commands(context):
            inner = command.get_command(context, each)
            assert inner is not None
            _describe(f"{name} {each}", inner, context, parts)


def _headers() -> str:
    folder = ROOT / "runtimes" / "cpp" / "include"
    shown = []
    for name in HEADERS:
        language = "c" if name.endswith(".h") else "cpp"
        shown.append(f"## {name}\n\n```{language}\n{(folder / name).read_text(encoding='utf-8')}```\n")
    return "\n".join(shown)
