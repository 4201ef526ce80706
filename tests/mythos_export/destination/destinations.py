"""As much of a bundle as a destination looks at, put into place and read back."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from mythos_export.destination import staged

needs_namespaces = pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run(["unshare", "-Urmpf", "true"], capture_output=True).returncode != 0,
    reason="this system makes no new namespaces",
)


def write_bundle(folder: Path, text: str = "new", version: int = 1) -> Path:
    """As much of a bundle as a destination looks at."""
    folder.mkdir(exist_ok=True)
    (folder / "engines").mkdir()
    (folder / "model.onnx").write_text(text)
    (folder / "engines" / "a.engine").write_text(text)
    files = {name: {"sha256": "0" * 64, "bytes": len(text)} for name in ("model.onnx", "engines/a.engine")}
    fields = dict.fromkeys(("created", "precision", "source", "targets", "tool_versions"))
    (folder / "manifest.json").write_text(json.dumps({"format_version": version, "files": files, **fields}))
    return folder


def put(place: Path, text: str = "new", force: bool = False, checkpoint: Path | None = None) -> None:
    with staged(place, force, checkpoint) as folder:
        write_bundle(folder, text)


def content(place: Path) -> str:
    texts = {(place / name).read_text() for name in ("model.onnx", "engines/a.engine")}
    assert len(texts) == 1 and (place / "manifest.json").is_file()
    return texts.pop()


def alone(place: Path) -> bool:
    """Whether nothing of an export is left beside a destination."""
    return [path.name for path in place.parent.iterdir() if path.name.startswith(".")] == []
