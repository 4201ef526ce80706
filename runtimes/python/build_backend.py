"""The build of mythos-runtime: scikit-build-core's, with editable installs of our own.

scikit-build-core's editable installs put a hook before all other ways to find a module, so that a second checkout on
PYTHONPATH is never imported. Ours are one line in a .pth file; `make native` builds the CPU kernels in place.
"""

from __future__ import annotations

import base64
import hashlib
import os
import zipfile
from pathlib import Path
from typing import Any

from scikit_build_core.build import (
    build_sdist,
    build_wheel,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
]

_METADATA_ALONE = "MYTHOS_METADATA_ALONE"  # pyproject.toml leaves packages and kernels out where it is set


def get_requires_for_build_editable(config_settings: dict[str, Any] | None = None) -> list[str]:
    """Nothing is compiled."""
    return []


def build_editable(
    wheel_directory: str, config_settings: dict[str, Any] | None = None, metadata_directory: str | None = None
) -> str:
    """A wheel that names this folder as a place to import from. Returns its file name (PEP 660)."""
    os.environ[_METADATA_ALONE] = "1"
    try:
        name: str = build_wheel(wheel_directory, config_settings)
    finally:
        del os.environ[_METADATA_ALONE]
    _add(Path(wheel_directory) / name, "_mythos_runtime.pth", f"{Path(__file__).parent}\n".encode())
    return name


def _add(wheel: Path, name: str, content: bytes) -> None:
    """Put a file into a wheel and into its RECORD."""
    with zipfile.ZipFile(wheel) as archive:
        files = {member: archive.read(member) for member in archive.namelist()}
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    record = next(member for member in files if member.endswith(".dist-info/RECORD"))
    files[record] = f"{name},sha256={digest},{len(content)}\n".encode() + files[record]
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in {name: content, **files}.items():
            archive.writestr(member, data)
