"""Builds the operators' CPU library and puts it where mythos_runtime looks for it.

    python cmake/build_native.py            # what `make setup` runs
    python cmake/build_native.py --tests    # what `make native` runs: with the kernels' test program

The wheel of mythos-runtime builds the same CMake project by itself (runtimes/python/pyproject.toml). The build folder
stays (build/kernels), so that a second build compiles only what changed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = Path("build/kernels")
HEADERS = Path("build/headers")  # downloaded once, for this and for the C++ runtime
NATIVE = Path("runtimes/python/mythos_runtime/native")  # `mythos_runtime.op_library.find_op_library`
NOT_BUILT = "not_built.txt"  # why the folder holds no library: `mythos doctor` quotes it
_TAIL = 15


class NotBuiltError(Exception):
    """The machine lacks something; the message says what, and what to install."""


def compiler() -> str | None:
    """The C++ compiler that CMake would take."""
    return os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")


def build(root: Path = ROOT, tests: bool = False) -> Path:
    """Compile into `root`/build/kernels and install into the runtime's `native/` folder, whose path is returned.

    `tests` builds mythos_kernels_test beside the library.

    Raises:
        NotBuiltError: no compiler, no cmake, no header, or the compiler failed; also written to `native/not_built.txt`,
            and a library of an earlier build is removed, since it may not fit the sources any more.
    """
    native = root / NATIVE
    native.mkdir(parents=True, exist_ok=True)
    reason = native / NOT_BUILT
    try:
        _require()
        options = (f"-DMYTHOS_HEADERS={root / HEADERS}", f"-DMYTHOS_BUILD_TESTS={'ON' if tests else 'OFF'}")
        source = ("-S", str(root / "mythos_export/kernels"), "-B", str(root / BUILD), "-DCMAKE_BUILD_TYPE=Release")
        _run("cmake", *source, *options)
        _run("cmake", "--build", str(root / BUILD), "--parallel", str(os.cpu_count() or 1))
        install = ("--install", str(root / BUILD), "--component", "mythos_ops", "--prefix", str(native))
        _run("cmake", *install)
        if not list(native.glob("*mythos_ops.*")):
            raise NotBuiltError(f"the build ended well but installed no library into {native}")
    except NotBuiltError as error:
        for library in (*native.glob("*mythos_*ops.*"), *native.glob("*mythos_tensorrt_plugins.*")):
            library.unlink()
        reason.write_text(f"{error}\n", encoding="utf-8")
        raise
    reason.unlink(missing_ok=True)
    return native


def _require() -> None:
    if compiler() is None:
        raise NotBuiltError("there is no C++ compiler: install g++ (apt-get install g++), then run make native")
    if shutil.which("cmake") is None:
        raise NotBuiltError("there is no cmake: install it (apt-get install cmake), then run make native")


def _run(*command: str) -> None:
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    print(result.stdout, end="", flush=True)
    if result.returncode:
        tail = "\n".join(result.stdout.strip().splitlines()[-_TAIL:])
        raise NotBuiltError(f"{' '.join(command)} failed with exit code {result.returncode}:\n{tail}")


if __name__ == "__main__":
    try:
        installed = build(tests="--tests" in sys.argv[1:])
        print(f"installed into {installed}")
    except NotBuiltError as error:
        sys.exit(f"the CPU kernels were not built, the portable operators serve instead: {error}")
