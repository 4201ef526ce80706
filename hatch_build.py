"""What the build of mythos-export finds out by itself: its version, and mythos-runtime of the same one.

The version is in one place, `runtimes/python/mythos_runtime/__init__.py`; a source distribution has it in its PKG-INFO.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class Version(MetadataHookInterface):
    """Sets `version` and `dependencies`; the other dependencies are in pyproject.toml."""

    def update(self, metadata: dict[str, Any]) -> None:
        root = Path(self.root)
        source, described = root / "runtimes/python/mythos_runtime/__init__.py", root / "PKG-INFO"
        file, pattern = (source, r'^__version__ = "(.+)"$') if source.is_file() else (described, r"^Version: (.+)$")
        found = re.search(pattern, file.read_text(encoding="utf-8"), re.MULTILINE)
        if found is None:
            raise ValueError(f"{file} says no version; expected a line that matches {pattern}")
        metadata["version"] = found[1]
        metadata["dependencies"] = [f"mythos-runtime=={found[1]}", *self.config["dependencies"]]
