"""The C++ runtime's programs, and how tests run them."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build" / "native"
RUN, DUMP, PARSE = BUILD / "mythos_run", BUILD / "mythos_dump", BUILD / "mythos_parse"
needs_cpp = pytest.mark.skipif(not RUN.is_file(), reason="the C++ runtime is not built: make native")


def cpp(*arguments: object, library: object = "none", **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program, with the portable operators unless told otherwise; None: as the program finds them."""
    environment = {**os.environ, "MYTHOS_OP_LIBRARY": str(library)}
    if library is None:
        del environment["MYTHOS_OP_LIBRARY"]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment, **options}
    return subprocess.run([item if isinstance(item, bytes) else str(item) for item in arguments], **options)


def folder_of(package: str, *parts: str) -> Path:
    """Of an installed package, which brings headers or libraries; without it the test is skipped."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"the package {package} is not installed")
    return Path(spec.submodule_search_locations[0]).joinpath(*parts)


def changed(bundle: Path, copy: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of a bundle with another manifest."""
    shutil.copytree(bundle, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    change(manifest)
    (copy / "manifest.json").write_text(json.dumps(manifest))
    return copy


def with_bytes(bundle: Path, copy: Path) -> Path:
    """A bundle with a byte tokenizer."""
    return changed(bundle, copy, lambda manifest: manifest.update(tokenizer={"kind": "bytes", "file": None}))
