"""The native session of full TensorRT: compiled against its public headers, linked with stand-ins for its libraries.

The headers are those that the package kernel-lens carries (TensorRT 10.14), CUDA's those of triton. No engine is
executed: that takes a GPU and a TensorRT.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest
from cpp_programs import ROOT

SOURCE = ROOT / "runtimes" / "cpp"
FLAGS = ("-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror")


def folder_of(package: str, *parts: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"the package {package} is not installed")
    return Path(spec.submodule_search_locations[0]).joinpath(*parts)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("devices", "said"),
    [
        (0, "a TensorRT engine needs an NVIDIA GPU, and CUDA finds none here (no device)"),
        (1, "cannot be loaded by TensorRT on this GPU: it was built for another GPU or another version"),
    ],
)
def test_the_native_session_is_built_and_says_what_is_missing(devices: int, said: str, tmp_path: Path) -> None:
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("there is no C++ compiler")
    headers = folder_of("kernel_lens", "include", "tensorrt"), folder_of("triton", "backends", "nvidia", "include")
    includes = [option for header in headers for option in ("-isystem", str(header))]
    program, engine = tmp_path / "program", tmp_path / "model.engine"
    engine.write_bytes(b"not an engine")
    sources = [SOURCE / "src" / name for name in ("tensorrt_native.cpp", "ports.cpp")]
    stand_ins = Path(__file__).with_name("native_tensorrt.cpp")
    command = [compiler, *FLAGS, f"-DDEVICES={devices}", *includes, f"-I{SOURCE / 'include'}", f"-I{SOURCE / 'src'}"]
    built = subprocess.run([*command, *sources, stand_ins, "-o", program], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    done = subprocess.run([program, engine], capture_output=True, text=True)
    assert done.returncode == 3 and said in done.stdout
