"""What the tensorrt backend does before it needs a GPU: which engines there are, and whose plug-ins they call."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from mythos_runtime import BackendMissing, BundleError
from mythos_runtime.manifest import Manifest, Target
from mythos_runtime.tensorrt import (
    EngineFile,
    choice,
    choose_engine,
    engines,
    find_plugin_library,
    missing_to_run,
    plugins,
    register_plugins,
    session,
)
from mythos_runtime.tensorrt.plugins import PLUGIN_LIBRARY


def manifest_of(**engine: Any) -> Manifest:
    details = {"engines": [{"file": "a.engine", "sm": [80, 86], "library": "tensorrt_rtx", **engine}]}
    targets = (Target("tensorrt", "built, not executed", ("a.engine",), details),)
    return Manifest(
        spec=None, config={}, precision="fp16", targets=targets, tool_versions={}, files={}, tolerances={},
        source=None, operators={}, created="",
    )  # type: ignore[arg-type]  # fmt: skip


def test_engines_say_whether_they_call_plug_ins() -> None:
    assert engines(manifest_of()) == (EngineFile("a.engine", "tensorrt_rtx", (80, 86)),)
    assert engines(manifest_of(plugins=True))[0].plugins
    with pytest.raises(BundleError, match="plugins should be true or false"):
        engines(manifest_of(plugins="yes"))


def test_the_engine_for_this_gpu_is_taken() -> None:
    found = (EngineFile("a", sm=(80, 86)), EngineFile("b", sm=(75,)))
    assert choose_engine(found, 75).file == "b"
    with pytest.raises(BackendMissing, match="--sm 120"):
        choose_engine(found, 120)


def test_what_is_missing_may_be_the_gpu_that_an_engine_was_built_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when an engine is built on a machine with another GPU."""
    asked: list[str] = []
    monkeypatch.setattr(choice, "missing", asked.append)
    monkeypatch.setattr(choice, "Device", lambda cuda: SimpleNamespace(capability=lambda: gpu))
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", ModuleType("cuda.bindings.runtime"))
    gpu = 86
    assert missing_to_run(manifest_of(library="tensorrt")) is None and set(asked) == {"tensorrt"}
    monkeypatch.setattr(plugins, "NATIVE", tmp_path)
    lack = missing_to_run(manifest_of(library="tensorrt", plugins=True))
    assert (
        lack == f"a.engine calls plug-ins, and {tmp_path / PLUGIN_LIBRARY} is not there: it is built on Linux, by make "
        "native in the source"
    )
    (tmp_path / PLUGIN_LIBRARY).touch()
    assert missing_to_run(manifest_of(library="tensorrt", plugins=True)) is None
    gpu = 90
    assert "compute capability 90" in str(missing_to_run(manifest_of()))
    monkeypatch.setattr(choice, "missing", lambda library: f"no {library}")
    assert "no tensorrt_rtx" in str(missing_to_run(manifest_of()))


class Registry:
    """Of plug-ins, as Python sees it."""

    def __init__(self, takes: bool = True) -> None:
        self.all_creators, self.loaded, self._takes = [SimpleNamespace(plugin_namespace="")], list[str](), takes

    def load_library(self, path: str) -> object | None:
        self.loaded.append(path)
        time.sleep(0.05)
        if len(self.loaded) > 1:
            return None  # a TensorRT takes a library once
        if self._takes:
            self.all_creators.append(SimpleNamespace(plugin_namespace="mythos"))
        return "a handle" if self._takes else None


def test_plug_ins_are_loaded_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    registry = Registry()
    trt = SimpleNamespace(get_plugin_registry=lambda: registry, __name__="tensorrt", __version__="11.1")
    monkeypatch.setattr(plugins, "NATIVE", tmp_path)
    with pytest.raises(BackendMissing, match=r"a.engine calls plug-ins, and .* is not there: .*export the model again"):
        register_plugins(trt, "a.engine")
    assert find_plugin_library() is None and plugins.refusal() == ""
    (tmp_path / PLUGIN_LIBRARY).touch()
    monkeypatch.setattr(plugins, "refusal", lambda: "")
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(register_plugins, [trt] * 4, ["a.engine"] * 4))
    assert registry.loaded == [str(tmp_path / PLUGIN_LIBRARY)]
    registry = Registry(takes=False)
    with pytest.raises(BackendMissing, match="a.engine calls plug-ins, and tensorrt 11.1 does not take .*log says why"):
        register_plugins(trt, "a.engine")


def test_what_a_plug_in_refused_is_why_an_engine_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    reasons = [": the plug-in mythos::moe: the engine is damaged", ""]
    monkeypatch.setattr(session, "refusal", lambda: reasons.pop(0))
    monkeypatch.setattr(session, "Device", lambda cuda: None)
    trt = SimpleNamespace(
        __name__="tensorrt",
        __version__="11.1",
        Logger=type("Logger", (), {"ERROR": 1, "__init__": lambda self, level: None}),
        Runtime=lambda logger: SimpleNamespace(deserialize_cuda_engine=lambda plan: None),
    )
    ports: Any = None
    with pytest.raises(BundleError, match=r"a.engine cannot be loaded: the plug-in mythos::moe: .* damaged$"):
        session.TensorRTSession(b"", ports, trt, None, "a.engine")
    with pytest.raises(BackendMissing, match=r"a.engine cannot be loaded by tensorrt 11.1 on this GPU"):
        session.TensorRTSession(b"", ports, trt, None, "a.engine")


@pytest.mark.skipif(find_plugin_library() is None, reason=f"{PLUGIN_LIBRARY} is not built: make native")
def test_what_was_refused_is_asked_of_the_library_itself() -> None:
    program = """
import ctypes, importlib
from mythos_runtime.tensorrt.plugins import refusal, register_plugins
trt = importlib.import_module("tensorrt_rtx")
register_plugins(trt, "a.engine")
creator = trt.get_plugin_registry().get_creator("moe", "1", "mythos")
assert creator.create_plugin("x", trt.PluginFieldCollection([]), trt.TensorRTPhase.RUNTIME) is None
print(refusal()); print(refusal() == "")
"""
    if importlib.util.find_spec("tensorrt_rtx") is None:
        pytest.skip("tensorrt_rtx is not installed")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == (
        ": the plug-in mythos::moe: the node does not say where its compiled kernels are (kernels, variant)\nTrue\n"
    ), done
    assert "plug-in" not in done.stderr  # who asks is not told twice
