"""Which TensorRT is taken on which machine, and what is said where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from mythos_export.errors import TargetError, ToolMissing
from mythos_export.targets.tensorrt_build import DEFAULT_SMS
from mythos_export.targets.tensorrt_build.environment import (
    Backend,
    Environment,
    ModuleStatus,
    choose_backend,
    gpu_capabilities,
    probe_module,
)

FULL = ModuleStatus("tensorrt", "10.9.0", None)
RTX = ModuleStatus("tensorrt_rtx", "1.7.1.116", None)
NO_FULL = ModuleStatus("tensorrt", None, "not installed")
NO_RTX = ModuleStatus("tensorrt_rtx", None, "not installed")


@pytest.mark.parametrize(
    ("environment", "module", "gpu"),
    [
        (Environment(FULL, RTX, (86, 89)), "tensorrt", 86),
        (Environment(FULL, RTX, ()), "tensorrt_rtx", None),
        (Environment(NO_FULL, RTX, (86,)), "tensorrt_rtx", None),
        (Environment(FULL, NO_RTX, (90,)), "tensorrt", 90),
    ],
)
def test_full_tensorrt_only_with_a_gpu(environment: Environment, module: str, gpu: int | None) -> None:
    backend = choose_backend(environment)
    assert (backend.module, backend.gpu) == (module, gpu)


@pytest.mark.parametrize("environment", [Environment(NO_FULL, NO_RTX, ()), Environment(FULL, NO_RTX, ())])
def test_missing_names_the_package(environment: Environment) -> None:
    with pytest.raises(ToolMissing, match="pip install tensorrt-rtx-cu13") as caught:
        choose_backend(environment)
    assert caught.value.exit_code == 3


def test_doctor_lines() -> None:
    lines = Environment(NO_FULL, NO_RTX, ()).describe()
    assert lines[0] == "NVIDIA GPUs: none"
    assert any("tensorrt-rtx-cu13" in line for line in lines)
    assert "TensorRT-RTX: 1.7.1.116" in Environment(FULL, RTX, (86,)).describe()


def test_targets() -> None:
    rtx, full = Backend("tensorrt_rtx", "1.7.1", None), Backend("tensorrt", "10.9", 90)
    assert rtx.targets(None, "fp16") == DEFAULT_SMS
    assert rtx.targets((120, 75), "fp16") == (75, 120)
    assert full.targets(None, "fp16") == full.targets((90,), "fp32") == (90,)
    with pytest.raises(TargetError, match=r"SM 90, but SM 86 was asked for.*TensorRT-RTX"):
        full.targets((86,), "fp16")


def test_probe_of_what_is_not_there() -> None:
    assert probe_module("a_tensorrt_that_does_not_exist").problem == "not installed"


def test_probe_of_a_module_that_crashes_on_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "crashing_tensorrt.py").write_text("import os\nos.abort()\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    status = probe_module("crashing_tensorrt")
    assert not status.usable and status.problem is not None and "SIGABRT" in status.problem


def test_probe_of_a_stub_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stub_tensorrt.py").write_text("raise RuntimeError('the libraries were not downloaded')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert "libraries were not downloaded" in str(probe_module("stub_tensorrt").problem)


def test_gpus_are_compute_capabilities() -> None:
    assert all(sm >= 30 for sm in gpu_capabilities())
