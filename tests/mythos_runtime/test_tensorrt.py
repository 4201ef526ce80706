"""What the tensorrt backend does before it needs a GPU: which engines there are, and whose plug-ins they call."""

from __future__ import annotations

import importlib.metadata
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from mythos_runtime import BackendMissing, BundleError
from mythos_runtime.manifest import Manifest, Target
from mythos_runtime.tensorrt import (
    PLUGINS_ENTRY_POINT,
    EngineFile,
    choice,
    choose_engine,
    engines,
    missing_to_run,
    register_plugins,
)


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


def test_what_is_missing_may_be_the_gpu_that_an_engine_was_built_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when an engine is built on a machine with another GPU."""
    asked: list[str] = []
    monkeypatch.setattr(choice, "missing", asked.append)
    monkeypatch.setattr(choice, "Device", lambda cuda: SimpleNamespace(capability=lambda: gpu))
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", ModuleType("cuda.bindings.runtime"))
    gpu = 86
    assert missing_to_run(manifest_of(library="tensorrt")) is None and set(asked) == {"tensorrt"}
    gpu = 90
    assert "compute capability 90" in str(missing_to_run(manifest_of()))
    monkeypatch.setattr(choice, "missing", lambda library: f"no {library}")
    assert "no tensorrt_rtx" in str(missing_to_run(manifest_of()))


def test_plug_ins_are_registered_by_the_package_that_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[Any] = []
    entries = {PLUGINS_ENTRY_POINT: [SimpleNamespace(load=lambda: called.append)]}
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: entries.get(group, []))
    register_plugins("the TensorRT module", "a.engine")
    assert called == ["the TensorRT module"]
    entries.clear()
    with pytest.raises(BackendMissing, match="a.engine calls plug-ins.*pip install mythos-export"):
        register_plugins("the TensorRT module", "a.engine")
