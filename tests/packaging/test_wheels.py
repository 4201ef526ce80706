"""The two distributions: built as a registry would, and the runtime used where there is no PyTorch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from golden_bundles import Bundles
from text_bundles import speaking_copy

import mythos_export
import mythos_runtime
from mythos_runtime import load

ROOT = Path(__file__).parents[2]
RUNTIME = ROOT / "runtimes" / "python"


def described(folder: Path) -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    return project


def test_one_version_everywhere() -> None:
    versions = {described(RUNTIME)["version"], described(ROOT)["version"]}
    assert versions == {mythos_runtime.__version__} == {mythos_export.__version__}
    assert f"mythos-runtime=={mythos_runtime.__version__}" in described(ROOT)["dependencies"]


def test_the_notices_lie_beside_what_they_are_about() -> None:
    assert (RUNTIME / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert "Copyright (c) Microsoft Corporation" in (RUNTIME / "THIRD_PARTY_NOTICES.txt").read_text()


class Environment:
    """A virtual environment of its own, in which nothing of this checkout is seen."""

    def __init__(self, folder: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        self.bin = folder / "bin"
        self._variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}

    def __call__(self, program: str, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
        command = [str(self.bin / program), *map(str, arguments)]
        environment = self._variables | options.pop("env", {})
        return subprocess.run(command, capture_output=True, text=True, env=environment, **options)

    def run(self, program: str, *arguments: object, **options: Any) -> str:
        """What a program that went well wrote to stdout."""
        result = self(program, *arguments, **options)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    environment = Environment(tmp_path_factory.mktemp("builder"))
    requires = [
        tomllib.loads((folder / "pyproject.toml").read_text())["build-system"]["requires"] for folder in (RUNTIME, ROOT)
    ]
    environment.run("pip", "install", "--quiet", *sum(requires, []))
    return environment


@pytest.fixture(scope="module")
def sdist(builder: Environment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of mythos-runtime."""
    folder = tmp_path_factory.mktemp("sdist")
    builder.run("python", "-c", f"import build_backend; build_backend.build_sdist({str(folder)!r})", cwd=RUNTIME)
    return next(folder.glob("*.tar.gz"))


def wheel(builder: Environment, source: Path, folder: Path, **variables: str) -> Path:
    builder.run("pip", "wheel", "--no-deps", "--no-build-isolation", "-w", folder, source, env=variables)
    return next(folder.glob("*.whl"))


@pytest.mark.slow
def test_the_runtime_runs_where_there_is_no_torch(
    builder: Environment, sdist: Path, bundles: Bundles, tmp_path: Path
) -> None:
    """From its source distribution to text, as on a machine that has nothing of this checkout."""
    bundle = speaking_copy(bundles["hops"], tmp_path / "bundle")
    expected = load(bundle, op_library=None).generate_all([[1, 2, 3]], max_new_tokens=8).tokens[0]
    box = Environment(tmp_path / "box")
    box.run("pip", "install", "--quiet", wheel(builder, sdist, tmp_path / "wheels"))
    assert "torch" not in box.run("pip", "list")
    document = json.loads(
        box.run("mythos", "run", bundle, "--ids", "1,2,3", "--max-new-tokens", "8", "--json").splitlines()[-1]
    )
    assert document["tokens"] == expected
    assert "bytes" in box.run("mythos", "inspect", bundle)
    found = {f["what"]: f for f in json.loads(box.run("mythos", "doctor", "--json").splitlines()[-1])}
    assert found["run ONNX on the CPU"]["works"]
    assert found["run operators natively"]["works"], found["run operators natively"]
    assert str(box.bin.parent) in found["run operators natively"]["found"]
    missing = box("mythos", "verify", bundle)
    assert (missing.returncode, "pip install mythos-export" in missing.stderr) == (2, True)
    refused = box("mythos", "run", bundle, "--chat", "--prompt", "x")
    assert (refused.returncode, refused.stderr) == (3, "error: a chat template needs Jinja: pip install jinja2\n")


@pytest.mark.slow
def test_without_a_compiler_the_wheel_says_so(builder: Environment, sdist: Path, tmp_path: Path) -> None:
    made = wheel(builder, sdist, tmp_path, CXX="/nowhere/c++")
    assert made.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(made) as archive:
        assert b"install g++" in archive.read("mythos_runtime/native/not_built.txt")


@pytest.mark.slow
def test_what_the_distributions_hold(builder: Environment, sdist: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "source/mythos_export/kernels/CMakeLists.txt",
        "THIRD_PARTY_NOTICES.txt",
        "mythos_runtime/py.typed",
    } <= names
    assert not [name for name in names if "native/" in name or name.startswith("source/") and name.endswith(".py")]
    with zipfile.ZipFile(wheel(builder, ROOT, tmp_path)) as exporter:
        files = set(exporter.namelist())
    assert {
        "mythos_export/py.typed",
        "mythos_model/py.typed",
        "mythos_model/pretrained/hops/model.safetensors",
    } <= files
    assert not [name for name in files if name.startswith(("mythos_runtime", "benchmarks", "tests"))]
    assert not [name for name in files if name.endswith((".cpp", ".h"))]


@pytest.mark.slow
def test_an_editable_install_gives_way_to_another_checkout(builder: Environment, tmp_path: Path) -> None:
    builder.run("pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "-e", RUNTIME)
    where = "import importlib.util as u; print(u.find_spec('mythos_runtime').origin)"
    assert builder.run("python", "-c", where).strip() == str(RUNTIME / "mythos_runtime" / "__init__.py")
    other = tmp_path / "other" / "mythos_runtime"
    other.mkdir(parents=True)
    (other / "__init__.py").touch()
    assert str(other) in builder.run("python", "-c", where, env={"PYTHONPATH": str(other.parent)})
