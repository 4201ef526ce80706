"""The build of the CPU library where the machine lacks something: it says what, and leaves no stale library."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from mythos_runtime import op_library


@pytest.fixture
def build_native() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_native", Path(__file__).parents[2] / "cmake/build_native.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_without_a_compiler(build_native: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    native = tmp_path / build_native.NATIVE
    native.mkdir(parents=True)
    (native / "libmythos_ops.so").touch()
    (native / "libmythos_cuda_ops.so").touch()
    (native / "libmythos_tensorrt_plugins.so").touch()
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(build_native.NotBuiltError, match=r"no C\+\+ compiler: install g\+\+"):
        build_native.build(tmp_path)
    assert [path.name for path in native.iterdir()] == ["not_built.txt"]
    monkeypatch.setattr(op_library, "NATIVE", native)
    assert op_library.find_op_library() is None
    assert "install g++" in op_library.why_no_op_library()


def test_a_failing_compiler_is_quoted(
    build_native: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mythos_export/kernels").mkdir(parents=True)
    (tmp_path / "mythos_export/kernels/CMakeLists.txt").write_text("message(FATAL_ERROR planted)\n")
    with pytest.raises(build_native.NotBuiltError, match="(?s)exit code 1.*planted"):
        build_native.build(tmp_path)


def test_a_session_can_be_told_to_use_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(op_library.OP_LIBRARY_VARIABLE, "none")
    assert op_library.find_op_library() is None
