"""What loading a bundle loads: of two runtimes only the one that serves."""

from __future__ import annotations

import subprocess
import sys

from engines import needs_native
from golden_bundles import Bundles

_PROGRAM = """
import sys
import mythos_runtime.cli
model = mythos_runtime.load(sys.argv[1], engine=sys.argv[2], threads=1)
list(model.generate([[1, 2, 3]], max_new_tokens=2))
print(*sys.modules)
"""
_ONLY_IN_PYTHON = {"mythos_runtime.engine.engine", "mythos_runtime.engine.core", "mythos_runtime.ort", "onnxruntime"}


def _modules(*arguments: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", _PROGRAM, *arguments], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@needs_native
def test_the_c_runtime_serves_without_pythons_engine(bundles: Bundles) -> None:
    """Which, with a second ONNX Runtime, is most of what Python would hold beside the weights."""
    found = _modules(str(bundles["mla_decode"]), "native")
    assert "mythos_runtime.engine.native.engine" in found
    assert not found & {*_ONLY_IN_PYTHON, "email", "asyncio", "torch", "mythos_runtime.shards.group"}


def test_python_s_engine_serves_without_torch(bundles: Bundles) -> None:
    found = _modules(str(bundles["mla_decode"]), "python")
    assert found >= _ONLY_IN_PYTHON and not found & {"torch", "asyncio"}


def test_running_a_bundle_imports_no_torch(bundles: Bundles) -> None:
    code = (
        "import sys, mythos_runtime\n"
        f"model = mythos_runtime.load({str(bundles['mla_decode'])!r})\n"
        "model.generate_all([[1, 2]], max_new_tokens=2)\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
