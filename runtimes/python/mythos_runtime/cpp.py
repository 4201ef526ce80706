"""The C++ runtime that comes with this package: `mythos_run`, a library, headers, and what CMake and pkg-config need.

    mythos_run bundle --ids 1,2,3                                    # `mythos run` without Python's start
    cmake -DCMAKE_PREFIX_PATH=$(python -m mythos_runtime.cpp) ...    # then find_package(mythos_runtime)
    PKG_CONFIG_PATH=$(python -m mythos_runtime.cpp)/lib/pkgconfig    # pkg-config --libs mythos_runtime

It opens the ONNX Runtime of the package onnxruntime, and the CPU kernels that Python uses.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from mythos_runtime.errors import BackendMissing
from mythos_runtime.session import NATIVE

PROGRAM = "mythos_run"


def program() -> Path:
    """`mythos_run`: of the wheel, or of `make native`, whose folder the package's link to the library leads to.

    Raises:
        BackendMissing: this install has none.
    """
    built = (NATIVE / "lib" / "libmythos_runtime.so").resolve().with_name(PROGRAM)
    found = next((path for path in (NATIVE / "bin" / PROGRAM, built) if path.is_file()), None)
    if found is None:
        raise BackendMissing(
            "this install of mythos-runtime has no C++ runtime: install it anew where g++ is (apt-get install g++ "
            "nlohmann-json3-dev libcli11-dev), or in its source run make native, which builds build/native/mythos_run"
        )
    return found


def prefix() -> Path:
    """The folder with bin/, include/ and lib/. Raises BackendMissing where this install has none."""
    folder = program().parent
    if folder != NATIVE / "bin":
        raise BackendMissing(
            f"the C++ runtime of this install is a build, {folder}, and not installed: cmake --install {folder} "
            "--prefix FOLDER, and name that FOLDER"
        )
    return NATIVE


def run() -> None:
    """Become `mythos_run`: the console script of that name."""
    path = str(_or_exit(program))
    os.execv(path, [path, *sys.argv[1:]])


def _or_exit(find: Callable[[], Path]) -> Path:
    try:
        return find()
    except BackendMissing as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    print(_or_exit(prefix))
