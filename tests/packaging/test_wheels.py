"""The two distributions: built as a registry would, and the runtime used where there is no PyTorch."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import build_release
import pytest
from golden_bundles import Bundles
from text_bundles import EOS, byte_level, hub_folder, speaking_copy

import mythos_export
import mythos_runtime
from mythos_export import export
from mythos_runtime import load

ROOT = Path(__file__).parents[2]
RUNTIME = ROOT / "runtimes" / "python"
TOKENIZER = ROOT / "build/tokenizer/libmythos_tokenizer.so"  # make tokenizer


def described(folder: Path) -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    return project


def test_the_version_is_in_one_place() -> None:
    assert all("version" in described(folder)["dynamic"] for folder in (RUNTIME, ROOT))
    assert mythos_export.__version__ is mythos_runtime.__version__
    first = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first is not None and first[1] == mythos_runtime.__version__
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    quoted = [
        name
        for name in listed.split("\0")
        if name.endswith((".py", ".toml", ".txt")) and f'"{mythos_runtime.__version__}"' in (ROOT / name).read_text()
    ]
    assert quoted == ["runtimes/python/mythos_runtime/__init__.py"]


def test_a_release_has_a_day(capsys: pytest.CaptureFixture[str]) -> None:
    build_release.check_changelog("1.2.3", "# Changelog\n\n## 1.2.3 (2030-01-02)\n")
    for text in ("# Changelog\n", "## 1.2.3 (unreleased)\n", "## 1.2.2 (2030-01-02)\n"):
        with pytest.raises(SystemExit, match="expected '1.2.3"):
            build_release.check_changelog("1.2.3", text)


@pytest.mark.slow
def test_what_a_release_says_of_itself(built: Path, tmp_path: Path) -> None:
    release = shutil.copytree(built, tmp_path / "dist")
    build_release.describe(built.parent / "wheel-tools" / "bin", release)
    runtime = json.loads((release / "mythos_runtime.cdx.json").read_text())
    names = {component["name"] for component in runtime["components"]}
    assert {"mythos-runtime", "numpy", "onnxruntime", "fastapi", "nlohmann-json"} <= names and "torch" not in names
    exporter = json.loads((release / "mythos_export.cdx.json").read_text())
    declared = {component["name"]: component.get("version") for component in exporter["components"]}
    assert declared["torch"] is not None and declared["mythos-runtime"] == mythos_runtime.__version__
    subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=release, check=True)
    assert len((release / "SHA256SUMS").read_text().splitlines()) == len(list(release.iterdir())) - 1


def test_the_notices_lie_beside_what_they_are_about() -> None:
    assert (RUNTIME / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    notices = (RUNTIME / "THIRD_PARTY_NOTICES.txt").read_text()
    for owner in (
        "Microsoft Corporation",
        "2013-2022 Niels Lohmann",
        "2017-2023 University of Cincinnati",
        "OpenSSL Project",
    ):
        assert owner in notices


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
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both source distributions, and the wheels that were made of them; built once for all workers of a run."""
    place = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        place = place.parent
    out, tools_folder = place / "distributions", place / "wheel-tools"
    with open(place / "distributions.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not out.exists():
            command = [sys.executable, ROOT / "cmake" / "build_wheels.py", place / "unfinished", tools_folder]
            script = subprocess.run(command, capture_output=True, text=True)
            assert script.returncode == 0, script.stdout + script.stderr
            (place / "unfinished").rename(out)
    return out


def only(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


@pytest.mark.slow
def test_the_runtime_runs_where_there_is_no_torch(built: Path, bundles: Bundles, tmp_path: Path) -> None:
    """From a wheel to text, as on a machine that has nothing of this checkout."""
    bundle = speaking_copy(bundles["hops"], tmp_path / "bundle")
    expected = load(bundle, op_library=None).generate_all([[1, 2, 3]], max_new_tokens=8).tokens[0]
    box = Environment(tmp_path / "box")
    box.run("pip", "install", "--quiet", only(built, "mythos_runtime-*.whl"))
    assert "torch" not in box.run("pip", "list")
    for program in (("mythos", "run"), ("mythos_run",)):
        asked = box(*program, bundle, "--ids", "1,2,3", "--max-new-tokens", "8", "--temperature", "0", "--json")
        assert (asked.returncode, asked.stderr.count("portable")) == (0, 0), asked.stderr
        assert json.loads(asked.stdout.splitlines()[-1])["tokens"] == expected
    assert "bytes" in box.run("mythos", "inspect", bundle)
    found = {f["what"]: f for f in json.loads(box.run("mythos", "doctor", "--json").splitlines()[-1])}
    assert found["run ONNX on the CPU"]["works"]
    for what in ("run operators natively", "run without Python"):
        assert found[what]["works"], found[what]
        assert str(box.bin.parent) in found[what]["found"]
    missing = box("mythos", "verify", bundle)
    assert (missing.returncode, "pip install mythos-export" in missing.stderr) == (2, True)
    refused = box("mythos", "run", bundle, "--chat", "--prompt", "x")
    assert (refused.returncode, refused.stderr) == (3, "error: a chat template needs Jinja: pip install jinja2\n")

    # What the README begins with: a folder of a hub, exported here, speaks there.
    folder = hub_folder(tmp_path / "hub", 300)
    byte_level(folder / "tokenizer.json")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 7, "max_new_tokens": 4}))
    export(folder, tmp_path / "speaks")
    asked = box("mythos", "run", tmp_path / "speaks", "--prompt", "Once")
    assert (asked.returncode, asked.stderr) == (
        3,
        "error: tokenizer.json needs the tokenizers library: pip install tokenizers\n",
    )
    box.run("pip", "install", "--quiet", "tokenizers")
    model = load(tmp_path / "speaks", op_library=None)
    assert model.tokenizer is not None
    answer = model.generate_all([model.tokenizer.encode("Once")], max_new_tokens=4, eos=[7, EOS]).tokens[0]
    assert box.run("mythos", "run", tmp_path / "speaks", "--prompt", "Once") == model.tokenizer.decode(answer) + "\n"
    prefix = box.run("python", "-m", "mythos_runtime.cpp").strip()
    assert (Path(prefix) / "lib/libmythos_tokenizer.so").is_file() == TOKENIZER.is_file()
    if TOKENIZER.is_file():
        assert (Path(prefix) / "lib/libmythos_tokenizer.notices.txt").is_file()
        spoken = box.run("mythos_run", tmp_path / "speaks", "--prompt", "Once")
        assert spoken == model.tokenizer.decode(answer) + "\n"

    kind = "import sys, mythos_runtime; print(type(mythos_runtime.load(sys.argv[1]).session).__name__)"
    assert box.run("python", "-c", kind, bundle) == "NativeSession\n"  # of the wheel's own library

    example = ROOT / "runtimes" / "cpp" / "example"
    for command in (
        ["cmake", "-S", example, "-B", tmp_path / "example", f"-DCMAKE_PREFIX_PATH={prefix}"],
        ["cmake", "--build", tmp_path / "example"],
        [tmp_path / "example" / "generate_cpp", bundle],
    ):
        result = subprocess.run(command, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.split() == [str(token) for token in expected]

    box.run("pip", "uninstall", "--quiet", "--yes", "onnxruntime")
    lost = box("mythos_run", bundle, "--ids", "1")
    assert (lost.returncode, "pip install onnxruntime" in lost.stderr) == (3, True), lost.stderr


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="manylinux is Linux's")
def test_the_tag_is_what_the_symbols_allow(built: Path) -> None:
    wheel = only(built, "mythos_runtime-*.whl")
    tag = re.fullmatch(r"mythos_runtime-[0-9.]+-py3-none-(manylinux_2_\d+_\w+)\.whl", wheel.name)
    assert tag, wheel.name
    shown = subprocess.run([built.parent / "wheel-tools/bin/auditwheel", "show", wheel], capture_output=True, text=True)
    assert f'platform tag: "{tag[1]}"' in " ".join(shown.stdout.split())


@pytest.mark.slow
def test_without_a_compiler_the_wheel_says_so(builder: Environment, built: Path, tmp_path: Path) -> None:
    source = only(built, "mythos_runtime-*.tar.gz")
    options = ("--no-deps", "--no-build-isolation")
    builder.run("pip", "wheel", *options, "-w", tmp_path, source, env={"CXX": "/nowhere/c++"})
    made = only(tmp_path, "*.whl")
    assert made.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(made) as archive:
        assert b"install g++" in archive.read("mythos_runtime/native/not_built.txt")


@pytest.mark.slow
def test_what_the_distributions_hold(built: Path) -> None:
    with tarfile.open(only(built, "mythos_runtime-*.tar.gz")) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"source/mythos_export/kernels/CMakeLists.txt", "source/runtimes/cpp/CMakeLists.txt", "LICENSE"} <= names
    built_here = "mythos_runtime/native/"
    assert not [name for name in names if name.startswith(built_here) or re.match(r"source/.*\.py$", name)]
    with zipfile.ZipFile(only(built, "mythos_runtime-*.whl")) as runtime:
        files = {entry.filename: entry.external_attr >> 16 for entry in runtime.infolist()}
    native = "mythos_runtime/native"
    assert {
        f"{native}/libmythos_ops.so",
        f"{native}/libmythos_cuda_ops.so",
        f"{native}/libmythos_tensorrt_plugins.so",
        f"{native}/lib/libmythos_runtime.so",
        f"{native}/include/mythos_runtime.h",
        f"{native}/include/mythos_engine.h",
    } <= (files.keys())
    assert files[f"{native}/bin/mythos_run"] & 0o111
    assert "mythos_runtime/py.typed" in files
    assert [name for name in files if name.endswith("/licenses/THIRD_PARTY_NOTICES.txt")]
    with tarfile.open(only(built, "mythos_export-*.tar.gz")) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "CHANGELOG.md"} <= names
    assert not [name for name in names if name.startswith(("benchmarks", "tests", "runtimes"))]
    with zipfile.ZipFile(only(built, "mythos_export-*-py3-none-any.whl")) as exporter:
        files = dict.fromkeys(exporter.namelist(), 0)
    weights = {f"mythos_model/pretrained/{name}/model.safetensors" for name in ("hops", "text", "walk")}
    assert {"mythos_export/py.typed", "mythos_model/py.typed", *weights} <= files.keys()
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
