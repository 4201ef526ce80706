"""The doctor's findings are about this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from click.testing import CliRunner

from mythos_export.doctor import examine as exporter
from mythos_runtime import BackendMissing, cpp, cuda_ops
from mythos_runtime.cli import mythos
from mythos_runtime.doctor import Finding, examine
from mythos_runtime.engine.native import why_no_native_engine
from mythos_runtime.op_library import find_op_library
from mythos_runtime.tensorrt import plugins


def test_findings_name_what_is_here_and_what_to_install() -> None:
    found = {finding.what: finding for finding in [*examine(), *exporter()]}
    assert found["run ONNX on the CPU"].found == f"onnxruntime {metadata.version('onnxruntime')}"
    assert found["capture and lower"].works
    for what in ("processor", "memory", "disk", "GPUs"):
        assert found[what].works is None
        assert found[what].found
    for finding in found.values():
        assert finding.works is not False or finding.remedy, finding


def test_libraries_for_a_gpu_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"launch a bundle's kernels in ONNX Runtime": cuda_ops, "run TensorRT engines with plug-ins": plugins}
    for module in names.values():
        monkeypatch.setattr(module, "NATIVE", tmp_path)
    found = {finding.what: finding for finding in examine()}
    for what in names:
        assert found[what].works is False and "is not there: it is built on Linux" in found[what].remedy
    (tmp_path / cuda_ops.CUDA_LIBRARY).touch()
    assert {finding.what: finding for finding in examine()}[next(iter(names))].works


def test_the_cpp_runtime_is_held_to_its_onnxruntime(tmp_path: Path) -> None:
    """In a process of its own: the library looks for it once."""
    if why_no_native_engine() is not None:
        pytest.skip("the C++ runtime is not built: make native")
    code = "from mythos_runtime.doctor import examine; print([f for f in examine() if 'C++ runtime' in f.what])"
    environment = {**os.environ, "MYTHOS_ONNXRUNTIME": str(tmp_path / "none.so")}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert "works=False" in ran.stdout and "ONNX Runtime was not found" in ran.stdout


def test_the_cpp_program_is_found_where_make_native_builds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is shown to Python as a link to the library beside it; an installation has it in bin/."""

    def found() -> Finding:
        return next(finding for finding in examine() if finding.what == "run without Python")

    package, build = tmp_path / "native", tmp_path / "build"
    monkeypatch.setattr(cpp, "NATIVE", package)
    for folder in (package / "lib", package / "bin", build):
        folder.mkdir(parents=True)
    (package / "lib" / "libmythos_runtime.so").symlink_to(build / "libmythos_runtime.so")
    assert found().works is False and "make native" in found().remedy
    (build / "mythos_run").touch()
    assert found() == Finding("run without Python", True, str(build / "mythos_run"))
    with pytest.raises(BackendMissing, match=f"cmake --install {build} --prefix"):
        cpp.prefix()
    (package / "bin" / "mythos_run").touch()
    assert found().found == str(package / "bin" / "mythos_run") and cpp.prefix() == package


def test_paths_are_whole_on_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    result = CliRunner().invoke(mythos, ["doctor", "--json"])
    assert result.exit_code == 0
    library = find_op_library()
    assert library is None or str(library) in result.stdout
    assert {finding["what"] for finding in json.loads(result.stdout.splitlines()[-1])} >= {"processor", "disk"}
