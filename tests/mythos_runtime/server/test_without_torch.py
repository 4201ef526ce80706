"""A machine without PyTorch serves. (What README.md tells to type is typed in tests/docs.)"""

from __future__ import annotations

import subprocess
import sys


def test_nothing_of_it_needs_pytorch() -> None:
    hidden = ("torch", "mythos_export", "mythos_model", "onnx")
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({hidden!r}));"
        "import mythos_runtime.server.app, mythos_runtime.server.command, mythos_runtime.cli"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
