"""Bundles that speak: a golden one with another tokenizer entry in its manifest."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from mythos_runtime.files import describe

TEMPLATE = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant] "


def speaking_copy(bundle: Path, folder: Path) -> Path:
    """The bundle as if it had been exported with the byte tokenizer and a chat template."""
    shutil.copytree(bundle, folder)
    template = folder / "chat_template.jinja"
    template.write_text(TEMPLATE)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][template.name] = vars(describe(template))
    (folder / "manifest.json").write_text(json.dumps(manifest))
    change_tokenizer(folder, kind="bytes", file=None, chat_template=template.name)
    return folder


def change_tokenizer(folder: Path, **fields: Any) -> None:
    """Write other fields into the manifest's tokenizer entry."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["tokenizer"] = (manifest.get("tokenizer") or {}) | fields
    (folder / "manifest.json").write_text(json.dumps(manifest))
