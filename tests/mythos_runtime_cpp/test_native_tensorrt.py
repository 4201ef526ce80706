"""The native session of full TensorRT: compiled against its public headers, linked with stand-ins for its libraries.

The headers are those that the package kernel-lens carries (TensorRT 10.14), CUDA's those of triton. No engine is
executed: that takes a GPU and a TensorRT.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cpp_programs import ROOT, RUN, changed, cpp, folder_of, needs_cpp
from golden_bundles import Bundles

from mythos_runtime.files import describe
from mythos_runtime.tensorrt import find_plugin_library
from mythos_runtime.tensorrt.plugins import PLUGIN_LIBRARY

SOURCE = ROOT / "runtimes" / "cpp"
FLAGS = ("-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("devices", "plugins", "said"),
    [
        (0, "", "a TensorRT engine needs an NVIDIA GPU, and CUDA finds none here (no device)"),
        (1, "", "cannot be loaded by TensorRT on this GPU: it was built for another GPU or another version"),
        (1, "nothing.so", "calls plug-ins, and this TensorRT does not take nothing.so"),
        (1, PLUGIN_LIBRARY, "model.engine cannot be loaded: the plug-in mythos::moe: the node does not say where"),
    ],
)
def test_the_native_session_is_built_and_says_what_is_missing(
    devices: int, plugins: str, said: str, tmp_path: Path
) -> None:
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("there is no C++ compiler")
    headers = folder_of("kernel_lens", "include", "tensorrt"), folder_of("triton", "backends", "nvidia", "include")
    includes = [option for header in headers for option in ("-isystem", str(header))]
    program, engine = tmp_path / "program", tmp_path / "model.engine"
    engine.write_bytes(b"not an engine")
    if plugins == PLUGIN_LIBRARY:
        (tmp_path / PLUGIN_LIBRARY).symlink_to(library())
        plugins = str(tmp_path / PLUGIN_LIBRARY)
    sources = [SOURCE / "src" / name for name in ("tensorrt_native.cpp", "ports.cpp", "plugins.cpp")]
    stand_ins = Path(__file__).with_name("native_tensorrt.cpp")
    command = [compiler, *FLAGS, f"-DDEVICES={devices}", *includes, f"-I{SOURCE / 'include'}", f"-I{SOURCE / 'src'}"]
    command += [*sources, stand_ins, "-Wno-deprecated-declarations", "-o", program, "-ldl", "-pthread"]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    done = subprocess.run([program, engine, plugins], capture_output=True, text=True)
    assert done.returncode == 3 and said in done.stdout and not done.stderr, done
    assert plugins == "nothing.so" or "does not take" not in done.stdout, done


def library() -> Path:
    found = find_plugin_library()
    if found is None:
        pytest.skip(f"{PLUGIN_LIBRARY} is not built: make native")
    return found


# A process of its own, which has a TensorRT-RTX or none: what it loads stays.
RTX = """
import ctypes, importlib, sys
if sys.argv[2]: trt = importlib.import_module(sys.argv[2])
words = ctypes.create_string_buffer(2000)
for _ in range(2): ctypes.CDLL(sys.argv[1]).load(words, len(words))
print(words.value.decode())
if sys.argv[2]:
    print(sorted(c.name for c in trt.get_plugin_registry().all_creators if c.plugin_namespace == "mythos"))
"""
WRAPPER = """
#include <cstdio>
#include <exception>
#include "plugins.hpp"
extern "C" void load(char* words, std::size_t size) {
  try {
    mythos::load_rtx_plugins("x.engine");
    std::snprintf(words, size, "loaded");
  } catch (const std::exception& error) {
    std::snprintf(words, size, "%s", error.what());
  }
}
"""


@pytest.mark.slow
@pytest.mark.parametrize("module", ["tensorrt_rtx", ""])
def test_the_plug_ins_go_into_the_tensorrt_rtx_of_the_process(module: str, tmp_path: Path) -> None:
    """The real one, whose registry has no public header."""
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("there is no C++ compiler")
    if module:
        folder_of(module)
    wrapper, made = tmp_path / "wrapper.cpp", tmp_path / "wrapper.so"
    wrapper.write_text(WRAPPER)
    includes = (f"-I{SOURCE / 'include'}", f"-I{SOURCE / 'src'}")
    sources = (wrapper, SOURCE / "src" / "plugins.cpp")
    command = [compiler, *FLAGS, "-shared", "-fPIC", *includes, *sources, "-o", made, "-ldl"]
    subprocess.run(command, check=True)
    asked = [sys.executable, "-c", RTX, str(made), module]
    none = subprocess.run(asked, capture_output=True, text=True)
    assert "x.engine calls plug-ins, and libmythos_tensorrt_plugins.so is not beside this program" in none.stdout, none
    (tmp_path / PLUGIN_LIBRARY).symlink_to(library())
    done = subprocess.run(asked, capture_output=True, text=True)
    expected = (
        "loaded\n['act_halting', 'gqa_attention', 'mla_attention', 'moe']\n"
        if module
        else "x.engine calls plug-ins, and ONNX Runtime has not loaded libtensorrt_rtx.so.1, which is to take them; "
        "the same bundle runs here with --backend onnxruntime\n"
    )
    assert done.stdout == expected, done


@pytest.mark.slow
@needs_cpp
def test_what_a_plug_in_refuses_is_why_onnx_runtime_cannot_load_an_engine(bundles: Bundles, tmp_path: Path) -> None:
    """The reason, which is not told on stderr once somebody asks for it, is in the session's error."""
    compiler, header = shutil.which("c++"), next((ROOT / "build/headers").glob("**/onnxruntime_c_api.h"), None)
    if compiler is None or header is None:
        pytest.skip("there is no C++ compiler, or no header of ONNX Runtime's")
    library()
    rtx = tmp_path / "libtensorrt_rtx.so.1"
    command = [compiler, *FLAGS, "-shared", "-fPIC", f"-Wl,-soname,{rtx.name}", "-isystem", header.parent]
    command += [
        f"-I{ROOT / 'mythos_export/kernels'}",
        Path(__file__).with_name("rtx_onnxruntime.cpp"),
        "-o",
        rtx,
        "-ldl",
    ]
    subprocess.run(command, check=True)

    def edit(manifest: dict[str, Any]) -> None:
        files = ["x.engine", "x.ep_context.onnx"]
        manifest["files"] |= {name: vars(describe(tmp_path / name)) for name in files}
        details = {"engines": [{"file": "x.engine", "sm": [86], "library": "tensorrt_rtx", "plugins": True}]}
        target = {"name": "tensorrt", "state": "built, not executed", "files": files, "details": details}
        manifest["targets"].append(target)

    for name in ("x.engine", "x.ep_context.onnx"):
        (tmp_path / name).write_bytes(b"vtrt")
    bundle = changed(bundles["mla_decode"], tmp_path / "bundle", edit)
    for name in ("x.engine", "x.ep_context.onnx"):
        shutil.copy(tmp_path / name, bundle)
    real = next(folder_of("onnxruntime", "capi").glob("libonnxruntime.so.1*"))
    environment = {**os.environ, "MYTHOS_ONNXRUNTIME": str(rtx), "REAL": str(real)}
    done = cpp(RUN, bundle, "--ids", "1", "--backend", "tensorrt", env=environment)
    said = "x.ep_context.onnx cannot be loaded: the plug-in mythos::moe: the node does not say where"
    assert done.returncode == 2 and said in done.stderr and "deserialize" not in done.stderr, done
