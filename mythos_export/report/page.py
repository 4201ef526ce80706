"""Templates to pages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from mythos_export.report.format import FILTERS
from mythos_runtime.files import write_whole

_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader("mythos_export.report"),
    autoescape=True,  # names of tensors, files and cases are data
    undefined=jinja2.StrictUndefined,  # a misspelt field is an error, not an empty cell
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters.update(FILTERS)


def render(template: str, **values: Any) -> str:
    """The page of a template in `templates/`; values of type Markup (such as plots from `svg`) go in as they are."""
    return _ENVIRONMENT.get_template(template).render(**values)


def write_page(path: Path, template: str, **values: Any) -> Path:
    """Render into a file. A failure leaves what was there before. Raises OSError, which names the file."""
    write_whole(path, render(template, **values).encode())
    return path


def write_json(path: Path, document: Any) -> Path:
    """The figures beside a page, into a file. A failure leaves what was there before. Raises as `write_page`."""
    write_whole(path, (json.dumps(document, indent=1, allow_nan=False) + "\n").encode())
    return path


__all__ = ["Markup", "render", "write_json", "write_page"]
