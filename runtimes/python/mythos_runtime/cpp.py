"""The C++ runtime that comes with this package: `mythos_run`, a library, headers, and what CMake and pkg-config need.

    mythos_run bundle --ids 1,2,3                                    # `mythos run` without Python's start
    cmake -DCMAKE_PREFIX_PATH=$(python -m mythos_runtime.cpp) ...    # then find_package(mythos_runtime)
    PKG_CONFIG_PATH=$(python -m mythos_runtime.cpp)/lib/pkgconfig    # pkg-config --libs mythos_runtime

It opens the ONNX Runtime of the package onnxruntime, and the CPU kernels that Python uses.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from mythos_runtime.errors import BackendMissing
from mythos_runtime.session import NATIVE


def prefix() -> Path:
    """The folder with bin/, include/ and lib/. Raises BackendMissing where this install has none."""
    if not _program().is_file():
        raise BackendMissing(
            "this install of mythos-runtime has no C++ runtime: install it anew where g++ is (apt-get install g++ "
            "nlohmann-json3-dev libcli11-dev), or in its source run make native, which builds build/native/mythos_run"
        )
    return NATIVE


def run() -> None:
    """Become `mythos_run`: the console script of that name."""
    program = str(_prefix_or_exit() / "bin" / "mythos_run")
    os.execv(program, [program, *sys.argv[1:]])


def _prefix_or_exit() -> Path:
    try:
        return prefix()
    except BackendMissing as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def _program() -> Path:
    return NATIVE / "bin" / "mythos_run"


if __name__ == "__main__":
    print(_prefix_or_exit())
