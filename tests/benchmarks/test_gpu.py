"""The benchmark for a GPU, without one: its dry run is every line of it but the GPU's own."""

from __future__ import annotations

import configparser
import json
import struct
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from golden_bundles import Bundles

import mythos_runtime
from benchmarks.gpu import pack
from benchmarks.gpu.__main__ import PARTS, ROOT, environment
from benchmarks.gpu.carry_onnxruntime import prune
from benchmarks.gpu.record import Record
from mythos_runtime.cuda_ops import CUDA_LIBRARY, missing_cuda_library


def test_a_step_that_fails_is_a_finding_and_nothing_before_it_is_lost(tmp_path: Path) -> None:
    record = Record(tmp_path / "found.json")
    record.say("first", {"ok": True})
    with record.step("second"):
        raise ZeroDivisionError("a bug of one line")
    record.say("third", {"ok": False})
    saved = json.loads((tmp_path / "found.json").read_text())
    assert saved["first"] == {"ok": True}
    assert (
        saved["second"]["error"] == "ZeroDivisionError: a bug of one line" and "test_gpu.py" in saved["second"]["where"]
    )
    assert record.failed == ["second", "third"]


def test_packages_are_described_as_an_installation_would(tmp_path: Path) -> None:
    for folder, file in zip(pack.site(tmp_path), ("pyproject.toml", "runtimes/python/pyproject.toml"), strict=True):
        project = tomllib.loads((ROOT / file).read_text())["project"]
        found = configparser.ConfigParser(delimiters="=")
        found.optionxform = str  # type: ignore[assignment, method-assign]
        found.read(folder / "entry_points.txt")
        expected = dict(project.get("entry-points", {})) | {"console_scripts": project["scripts"]}
        assert {group: dict(found[group]) for group in found.sections()} == expected
        assert f"Version: {mythos_runtime.__version__}" in (folder / "METADATA").read_text()
    program = "from importlib.metadata import entry_points as e; print(len(e(group='mythos_runtime.eager_kernels')))"
    command = [sys.executable, "-S", "-c", program]  # -S: nothing that is installed
    done = subprocess.run(command, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"


def fatbin(*entries: tuple[int, int, bytes]) -> bytes:
    """Of kind (1 PTX, 2 machine code), architecture and content."""
    body = b""
    for kind, architecture, content in entries:
        header = struct.pack("<HHIQ", kind, 0x101, 64, len(content)) + bytes(12) + struct.pack("<I", architecture)
        body += header.ljust(64, b"\1") + content
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body


def test_only_one_architecture_of_a_library_is_carried() -> None:
    two = fatbin((2, 80, b"a" * 32), (2, 90, b"b" * 40), (1, 90, b"p" * 8))
    other = fatbin((2, 80, b"c" * 24))
    section, names = two + other, b"\0.nv_fatbin\0"
    table = 64 + len(section) + len(names)
    library = bytearray(b"\x7fELF".ljust(64, b"\0"))
    struct.pack_into("<Q", library, 40, table)
    struct.pack_into("<HHH", library, 58, 64, 2, 1)
    library += section + names
    for name, offset, size in ((1, 64, len(section)), (0, 64 + len(section), len(names))):
        library += struct.pack("<IIQQQQ", name, 1, 0, 0, offset, size).ljust(64, b"\0")
    before = bytes(library)
    assert prune(library, 90) == (40 + 24, 32 + 8)  # what has no code for 90 keeps its own
    assert len(library) == len(before) and b"b" * 40 in library and b"c" * 24 in library
    assert b"a" * 32 not in library and b"p" * 8 not in library
    with pytest.raises(ValueError, match="not an ELF"):
        prune(bytearray(b"MZ" * 100), 90)


def test_an_unknown_part_is_named() -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "--parts", "kernels,cernels"]
    done = subprocess.run(command, cwd=ROOT, env=environment(dry=True), capture_output=True, text=True)
    assert done.returncode == 2 and "no part cernels; the parts are environment, kernels" in done.stderr


@pytest.mark.slow
def test_the_dry_run_ends_with_nothing_out_of_bounds(tmp_path: Path, bundles: Bundles) -> None:
    (tmp_path / "bundles").mkdir()
    for name in ("gqa_prefill", "gqa_prefill, fp32, int8"):
        (tmp_path / "bundles" / name).symlink_to(bundles[name])
    options = ["--dry-run", "--seconds", "900", "--out", str(tmp_path), "--bundles", str(tmp_path / "bundles")]
    command = [sys.executable, "-m", "benchmarks.gpu", "--parts", ",".join(PARTS), *options]
    done = subprocess.run(command, cwd=ROOT, env=environment(dry=True), capture_output=True, text=True)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["state"].endswith("built, not executed")
    for name, part in results["parts"].items():
        assert part["ended"] == 0 and not part["failed"], (name, part)
    assert list(results["parts"]) == list(PARTS)
    assert done.returncode == 0, done.stderr
    kernels = results["parts"]["kernels"]["found"]
    known = ("moe", "mla_attention", "gqa_attention", "act_halting", "rotary_embedding", "loop_tail")
    assert all(kernels[f"{op} fp32"]["cases"] > 0 for op in known)
    engines = results["parts"]["rows_onnx"]["found"]
    assert engines.keys() == {"gqa_prefill", "gqa_prefill, fp32, int8"}  # the one over int8 pages
    assert {key for key in results["parts"]["captured"]["found"] if "int8" in key} == set()
    loop = results["parts"]["loop"]["found"]["past 9 triton"]
    assert loop["at once"]["graph"]["depths_equal"] and (loop["at once"]["loops"], loop["every loop"]["loops"]) == (
        1,
        4,
    )


@pytest.mark.slow
def test_a_part_that_crashes_or_hangs_costs_only_itself(tmp_path: Path) -> None:
    program = (
        "import sys; from benchmarks.gpu import __main__ as keeper;"
        "keeper.PARTS = {'dies': keeper.Part('dies', 30), 'kernels': keeper.Part('kernels', 0.25),"
        " 'environment': keeper.PARTS['environment']};"
        f"sys.argv = ['gpu', '--out', {str(tmp_path)!r}, '--dry-run', '--seconds', '300'];"
        "sys.exit(keeper.main())"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment(dry=True), capture_output=True)
    parts = json.loads((tmp_path / "results.json").read_text())["parts"]
    assert done.returncode == 1
    assert parts["dies"]["ended"] == 2 and "invalid choice" in parts["dies"]["log"]
    assert parts["kernels"]["ended"] == "stopped after 2 s" and parts["environment"]["ended"] == 0


@pytest.mark.slow
def test_what_is_packed_is_all_that_the_tests_for_a_gpu_import(tmp_path: Path) -> None:
    pack.project(tmp_path)
    values = {**environment(dry=True), "PYTHONPATH": f"{tmp_path}:{tmp_path / 'runtimes' / 'python'}"}
    command = [sys.executable, "-m", "pytest", "tests/gpu", "-m", "gpu", "--collect-only", "-q"]
    done = subprocess.run(command, cwd=tmp_path, env=values, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_runtime_there_is_given_what_it_lacks(tmp_path: Path) -> None:
    """And nothing in place of what it has; of a machine that could build nothing, nothing is carried."""
    carried, native = tmp_path / "kernels", tmp_path / "runtimes" / "python" / "mythos_runtime" / "native"
    carried.mkdir()
    native.parent.mkdir(parents=True)
    assert not pack.give_runtime(carried, tmp_path) and not native.exists()
    for name in pack.NATIVE:
        (carried / name).write_text("carried")
    native.mkdir()
    (native / "libmythos_tensorrt_plugins.so").write_text("its own")
    assert pack.give_runtime(carried, tmp_path) == [native / CUDA_LIBRARY]
    assert {path.name: path.read_text() for path in native.iterdir()} == {
        "libmythos_tensorrt_plugins.so": "its own",
        CUDA_LIBRARY: "carried",
    }


@pytest.mark.slow
@pytest.mark.skipif(missing_cuda_library() is not None, reason=f"{missing_cuda_library()}")
def test_a_machine_without_a_checkout_runs_what_was_packed(tmp_path: Path, bundles: Bundles) -> None:
    """With --project: the runtime has the operators for ONNX Runtime's CUDA provider, and the engine's part runs."""
    packed = tmp_path / "gpu"
    (packed / "bundles").mkdir(parents=True)
    for name in pack.BUNDLES:
        (packed / "bundles" / name).symlink_to(bundles[name])
    command = [sys.executable, "-m", "benchmarks.gpu.pack", "--project", "--out", str(packed)]
    done = subprocess.run(command, cwd=ROOT, env=environment(dry=True), capture_output=True, text=True)
    assert done.returncode == 0 and "not carried" not in done.stdout, done.stdout + done.stderr
    assert {path.name for path in (packed / "kernels").iterdir()} == set(pack.NATIVE)
    there = packed / "project"
    values = {name: value for name, value in environment(dry=True).items() if name != "PYTHONPATH"}
    program = f"""
import sys
sys.path[:0] = [{str(there)!r}, {str(there / "runtimes" / "python")!r}]
from mythos_runtime import cuda_ops
from mythos_runtime.tensorrt import missing_plugins
assert cuda_ops.__file__.startswith({str(there)!r}), cuda_ops.__file__
assert cuda_ops.missing_cuda_library() is None and missing_plugins() is None
"""
    subprocess.run([sys.executable, "-c", program], cwd=there, env=values, check=True)
    command = [sys.executable, "-m", "benchmarks.gpu", "--out", "out", "--bundles", "../bundles", "--dry-run"]
    command += ["--parts", "rows_onnx,plugins"]
    done = subprocess.run(command, cwd=there, env=values, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    parts = json.loads((there / "out" / "results.json").read_text())["parts"]
    rows = parts["rows_onnx"]["found"]
    assert rows.keys() == set(pack.BUNDLES) and all(found["equal"] and found["ok"] for found in rows.values())
    assert not any("missing" in found for found in parts["plugins"]["found"].values())
