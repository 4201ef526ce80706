"""Cross-compiles the CPU kernels and the C++ runtime for 64-bit ARM, and runs their tests under qemu-user.

    python cmake/build_aarch64.py           # `make aarch64`: into build/aarch64

Needs Debian's g++-aarch64-linux-gnu and qemu-user. ONNX Runtime's library comes out of its wheel for that processor.
What runs emulated says that results are right, and nothing of how fast they come.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build/aarch64"
COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"
LIBRARIES = "/usr/aarch64-linux-gnu/lib"

# ONNX Runtime asks what processor it runs on, and qemu 7 shows it this machine's.
CPUINFO = """processor\t: 0
BogoMIPS\t: 100.00
Features\t: fp asimd evtstrm cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd07
CPU revision\t: 0

"""


def missing() -> str | None:
    """What this machine lacks, and what brings it; None where it has all."""
    packages = {COMPILER: "g++-aarch64-linux-gnu", EMULATOR: "qemu-user", "cmake": "cmake"}
    lacks = [package for program, package in packages.items() if shutil.which(program) is None]
    return (
        f"cross-compiling for aarch64 needs {' and '.join(lacks)}: apt-get install {' '.join(lacks)}" if lacks else None
    )


def onnxruntime(folder: Path) -> Path:
    """Its library for aarch64, out of the wheel of the version that this Python has."""
    wanted = version("onnxruntime")
    if not list(folder.glob(f"onnxruntime-{wanted}-*aarch64.whl")):
        pip = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:")
        platforms = [f"--platform=manylinux_2_{minor}_aarch64" for minor in (28, 27, 17)]
        _run(*pip, *platforms, "-d", folder, f"onnxruntime=={wanted}")
    with zipfile.ZipFile(next(folder.glob(f"onnxruntime-{wanted}-*aarch64.whl"))) as wheel:
        member = next(name for name in wheel.namelist() if "/libonnxruntime.so." in name)
        return Path(wheel.extract(member, folder))


def sysroot(folder: Path) -> Path:
    """What the emulator takes for the root of the file system, where a file is in it."""
    root = folder / "sysroot"
    (root / "proc").mkdir(parents=True, exist_ok=True)
    (root / "proc/cpuinfo").write_text(CPUINFO)
    if not (root / "lib").is_symlink():
        (root / "lib").symlink_to(LIBRARIES)
    return root


def build(folder: Path = BUILD) -> None:
    """Both, and their tests; raises CalledProcessError."""
    cross = (
        "-DCMAKE_SYSTEM_NAME=Linux",
        "-DCMAKE_SYSTEM_PROCESSOR=aarch64",
        f"-DCMAKE_CXX_COMPILER={COMPILER}",
        f"-DCMAKE_CROSSCOMPILING_EMULATOR={EMULATOR};-L;{sysroot(folder)}",
        "-DCMAKE_IGNORE_PATH=/usr/include;/usr/local/include",  # they are this machine's
        f"-DMYTHOS_HEADERS={ROOT / 'build/headers'}",
        "-DCMAKE_BUILD_TYPE=Release",
    )
    library = onnxruntime(folder)
    operators = folder / "kernels/libmythos_ops.so"
    runtime = (f"-DONNXRUNTIME_LIBRARY={library}", f"-DMYTHOS_OPS={operators}", "-DMYTHOS_OPENSSL=OFF")
    for source, name, options in (
        ("mythos_export/kernels", "kernels", ("-DMYTHOS_BUILD_TESTS=ON",)),
        ("runtimes/cpp", "native", (*runtime, "-DMYTHOS_TENSORRT=OFF")),
    ):
        _run("cmake", "-S", ROOT / source, "-B", folder / name, *cross, *options)
        _run("cmake", "--build", folder / name, "--parallel", "2")
        _run("ctest", "--test-dir", folder / name, "--output-on-failure")


def _run(*command: object) -> None:
    subprocess.run([str(word) for word in command], check=True)


if __name__ == "__main__":
    lack = missing()
    if lack is not None:
        print(lack, file=sys.stderr)
        sys.exit(3)
    BUILD.mkdir(parents=True, exist_ok=True)
    try:
        build()
    except subprocess.CalledProcessError as error:
        sys.exit(f"{' '.join(map(str, error.cmd))} failed with exit code {error.returncode}")
