"""The package build: compiles the CPU kernels into the wheel where it can, and says why where it cannot.

A machine without a compiler gets a working install: every operator has a portable function body in the ONNX graph.
"""

from __future__ import annotations

import shutil
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

sys.path.insert(0, str(Path(__file__).parent))
from build_native import NATIVE, NotBuiltError, build, compiler


class NativeKernels(BuildHookInterface):
    """Runs for wheels, editable ones included; a source distribution stays source."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """cmake from the package index, where there is a compiler and no cmake to drive it."""
        return ["cmake>=3.20"] if compiler() and not shutil.which("cmake") else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        build_data["artifacts"].append(f"{NATIVE}/*")  # git ignores them, the wheel does not
        try:
            build(Path(self.root))
        except NotBuiltError as error:
            self.app.display_warning(f"CPU kernels are not built, the portable operators serve instead: {error}")
            return
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"
