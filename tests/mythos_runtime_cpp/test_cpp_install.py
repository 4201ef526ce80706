"""What is installed: found by CMake and by pkg-config, from C++ and from C, with its operators."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from cpp_programs import BUILD, ROOT, cpp, needs_cpp
from golden_bundles import Bundles

from mythos_runtime import load

pytestmark = needs_cpp


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prefix = tmp_path_factory.mktemp("installed")
    result = cpp("cmake", "--install", BUILD, "--prefix", prefix)
    assert result.returncode == 0, result.stderr
    return prefix


def test_the_examples_build_against_it(installed: Path, bundles: Bundles, tmp_path: Path) -> None:
    example, build = ROOT / "runtimes" / "cpp" / "example", tmp_path / "build"
    for command in (
        ["cmake", "-S", example, "-B", build, f"-DCMAKE_PREFIX_PATH={installed}"],
        ["cmake", "--build", build],
    ):
        result = cpp(*command)
        assert result.returncode == 0, result.stdout + result.stderr
    of_python = load(bundles["mla_decode"], threads=1, op_library=None, engine="python")
    expected = of_python.generate_all([[1, 2, 3]], max_new_tokens=8).tokens[0]
    for program in ("generate_cpp", "generate_c", "engine_cpp", "engine_c"):
        shown = cpp(build / program, bundles["mla_decode"])
        assert (shown.returncode, shown.stdout.split()) == (0, [str(token) for token in expected]), shown.stderr
        assert cpp(build / program, "/nowhere").returncode == 2
        assert cpp(build / program).returncode == 2


@pytest.mark.skipif(shutil.which("pkg-config") is None, reason="pkg-config is missing: apt-get install pkg-config")
def test_pkg_config_finds_it(installed: Path, bundles: Bundles, tmp_path: Path) -> None:
    package = next(installed.rglob("mythos_runtime.pc"))
    flags = cpp("pkg-config", "--cflags", "--libs", package)
    assert flags.returncode == 0, flags.stderr
    source, program = ROOT / "runtimes" / "cpp" / "example" / "generate.c", tmp_path / "program"
    built = cpp("c++", "-x", "c", source, "-o", program, *flags.stdout.split())
    assert built.returncode == 0, built.stderr
    assert cpp(program, bundles["mla_decode"]).returncode == 0


def test_it_brings_its_operators_and_the_variable_wins(installed: Path, bundles: Bundles) -> None:
    arguments = [installed / "bin" / "mythos_run", bundles["hops"], "--ids", "1", "--max-new-tokens", "1", "--json"]
    for library, operators in ((None, "native"), ("none", "portable")):
        result = cpp(*arguments, library=library)
        assert result.returncode == 0, result.stderr
        assert json.loads(result.stdout.splitlines()[-1])["operators"] == operators
        assert ("portable" in result.stderr) == (operators == "portable")
