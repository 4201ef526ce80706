"""TensorRT's plug-ins in C++: from a graph's node through what an engine keeps to the launches. On no GPU."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from cpp_programs import folder_of
from plugin_caller import CALLER, LIBRARY
from plugin_ops import OPERATORS, OTHERS
from stand_in_process import check

KERNELS = Path(__file__).parents[3] / "mythos_export" / "kernels"
pytestmark = pytest.mark.skipif(not CALLER.exists(), reason=f"{CALLER.name} is not built: make native")


def run(*asked: str, library: Path = LIBRARY, caller: Path = CALLER) -> None:
    check("plugin_ops.py", library, caller, asked=asked)


@pytest.mark.parametrize("op", OPERATORS)
def test_launches_what_pythons_plan_does_and_computes_what_the_reference_does(op: str) -> None:
    run(op)


@pytest.mark.parametrize("what", OTHERS)
def test_two_gpus_and_what_is_damaged_or_does_not_fit(what: str) -> None:
    run(what)


def test_the_library_is_linked_neither_to_tensorrt_nor_to_cuda() -> None:
    linked = subprocess.run(["ldd", LIBRARY], capture_output=True, text=True, check=True).stdout
    assert "libc.so" in linked and not [name for name in ("nvinfer", "tensorrt", "cuda") if name in linked]
    shown = subprocess.run(["nm", "-D", "--defined-only", LIBRARY], capture_output=True, text=True, check=True).stdout
    names = {line.split()[-1] for line in shown.splitlines()}
    assert names == {"getCreators", "setLoggerFinder", "mythos_plugin_error"}


@pytest.mark.slow
def test_tensorrts_own_headers_say_the_same(tmp_path: Path) -> None:
    """What was compiled with them calls what was compiled without, and is called by it: the package kernel-lens carries
    those of TensorRT 10.14, triton CUDA's."""
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("there is no C++ compiler")
    folders = folder_of("kernel_lens", "include", "tensorrt"), folder_of("triton", "backends", "nvidia", "include")
    json_folder = next((KERNELS.parents[1] / "build/headers").glob("**/nlohmann"), None)
    system = [*folders, *([json_folder.parent] if json_folder else [])]
    includes = [f"-I{KERNELS}", *(option for folder in system for option in ("-isystem", str(folder)))]
    options = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-deprecated-declarations", "-fPIC", "-shared"]
    options += ["-fvisibility=hidden", "-DMYTHOS_NVINFER"]
    caller, library = tmp_path / "caller.so", tmp_path / "plugins.so"
    parts = [KERNELS / "tensorrt" / name for name in ("creators.cpp", "plugin.cpp", "node.cpp", "said.cpp")]
    launcher = ["-Wl,--whole-archive", LIBRARY.with_name("libmythos_cuda_launcher.a"), "-Wl,--no-whole-archive"]
    for made, sources in (
        (caller, ["-fvisibility=default", KERNELS / "tensorrt" / "caller.cpp"]),
        (library, [*parts, *launcher]),
    ):
        command = [compiler, *options, *includes, *sources, "-o", made, "-ldl"]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    run("gqa_attention", "misfits", caller=caller)
    run("gqa_attention", "misfits", library=library)
