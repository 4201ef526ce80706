"""Builds the C++ runtime into build/native, where `mythos_run` then is, and shows Python its engine: `make native` runs
this.

    python cmake/build_runtime.py               # release
    python cmake/build_runtime.py sanitize      # address and undefined-behaviour sanitizers, then ctest
    python cmake/build_runtime.py threads BUNDLE  # the thread sanitizer, over the kernels and over the runtime
    python cmake/build_runtime.py fuzz [SECONDS]  # the manifest reader: libFuzzer with clang, else its own mutations

The ONNX Runtime that is linked is the one of the Python that runs this.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from build_native import HEADERS, NATIVE
from build_tokenizer import LIBRARY as TOKENIZER

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "runtimes/cpp"


def build(folder: Path, *options: str) -> None:
    """Configure and compile; raises CalledProcessError."""
    jobs = str(os.cpu_count() or 1)
    operators = ROOT / NATIVE / "libmythos_ops.so"
    if operators.is_file():  # built once for Python, used again
        options = (f"-DMYTHOS_OPS={operators}", *options)
        for option, name in (("PLUGINS", "libmythos_tensorrt_plugins.so"), ("CUDA_OPS", "libmythos_cuda_ops.so")):
            if (library := operators.with_name(name)).is_file():
                options = (f"-DMYTHOS_{option}={library}", *options)
    if TOKENIZER.is_file():
        options = (f"-DMYTHOS_TOKENIZER={TOKENIZER}", *options)
    common = (f"-DPython3_EXECUTABLE={sys.executable}", f"-DMYTHOS_HEADERS={ROOT / HEADERS}")
    _run("cmake", "-S", str(SOURCE), "-B", str(folder), *common, *options)
    _run("cmake", "--build", str(folder), "--parallel", jobs)


def show(folder: Path) -> None:
    """Put the library where mythos_runtime looks for it (`mythos_runtime.engine.native.find_runtime_library`)."""
    link = ROOT / NATIVE / "lib/libmythos_runtime.so"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(folder / "libmythos_runtime.so")


def sanitize() -> None:
    folder = ROOT / "build/native-sanitize"
    # Hashing in plain C++ has its tests here; elsewhere OpenSSL's serves.
    build(folder, "-DMYTHOS_SANITIZE=ON", "-DMYTHOS_OPENSSL=OFF", "-DCMAKE_BUILD_TYPE=RelWithDebInfo")
    _run("ctest", "--test-dir", str(folder), "--output-on-failure")


def threads(bundle: str) -> None:
    """The kernels' tests, which share their work among threads, the runtime's, and two threads over a bundle."""
    thread = ("-DMYTHOS_SANITIZE=THREAD", "-DCMAKE_BUILD_TYPE=RelWithDebInfo")
    kernels, runtime = ROOT / "build/kernels-threads", ROOT / "build/native-threads"
    only = ("-DMYTHOS_BUILD_OPS=OFF", "-DMYTHOS_BUILD_TESTS=ON")
    _run("cmake", "-S", str(ROOT / "mythos_export/kernels"), "-B", str(kernels), *thread, *only)
    _run("cmake", "--build", str(kernels), "--parallel", str(os.cpu_count() or 1))
    build(runtime, *thread, "-DMYTHOS_OPENSSL=OFF")
    for folder in (kernels, runtime):
        _run("ctest", "--test-dir", str(folder), "--output-on-failure")
    _run(str(runtime / "mythos_threads"), bundle)


def fuzz(seconds: str) -> None:
    """A minute by default. Without clang the same target mutates seeds by itself, with no coverage to guide it."""
    folder = ROOT / "build/native-fuzz"
    clang = shutil.which("clang++")
    options = ["-DMYTHOS_SANITIZE=ON", "-DMYTHOS_ORT=OFF", "-DCMAKE_BUILD_TYPE=RelWithDebInfo"]
    if clang:
        options += [f"-DCMAKE_CXX_COMPILER={clang}", "-DMYTHOS_LIBFUZZER=ON"]
    build(folder, *options)
    seed = ROOT / "runtimes/cpp/tests/manifest_seed.json"
    if clang:
        corpus = folder / "corpus"
        corpus.mkdir(exist_ok=True)
        shutil.copy(seed, corpus)
        _run(str(folder / "mythos_fuzz"), f"-max_total_time={seconds}", str(corpus))
    else:
        print("clang++ is not installed (apt-get install clang): mutations without coverage instead of libFuzzer")
        _run(str(folder / "mythos_fuzz"), seconds, str(seed))


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


if __name__ == "__main__":
    what = sys.argv[1] if len(sys.argv) > 1 else "native"
    if shutil.which("cmake") is None or not (shutil.which("c++") or os.environ.get("CXX")):
        print("the C++ runtime needs a compiler and cmake: apt-get install g++ cmake", file=sys.stderr)
        sys.exit(3)
    try:
        if what == "sanitize":
            sanitize()
        elif what == "threads":
            threads(sys.argv[2])
        elif what == "fuzz":
            fuzz(sys.argv[2] if len(sys.argv) > 2 else "60")
        else:
            build(ROOT / "build/native")
            show(ROOT / "build/native")
    except subprocess.CalledProcessError as error:
        print(f"{' '.join(map(str, error.cmd))} failed with exit code {error.returncode}", file=sys.stderr)
        sys.exit(3 if what == "native" else 1)
