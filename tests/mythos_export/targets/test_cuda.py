"""Target `cuda`: what is refused, exported, verified, and run by PyTorch. No GPU has run its kernels."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
from click.testing import CliRunner
from cuda_ops import fed
from engines import pool_of
from golden_bundles import GOLDEN, config_of
from stand_in_gpu import LIBRARY, open_session

from mythos_export import export
from mythos_export.errors import TargetError, ToolMissing
from mythos_export.kernels import triton_build
from mythos_export.kernels.beside import BESIDE
from mythos_export.kernels.launch_plan import KernelSpec
from mythos_export.targets.registry import find_target
from mythos_export.targets.target import TargetOptions, check_request
from mythos_model.pretrained import folder
from mythos_runtime import load, read_manifest
from mythos_runtime.cli import mythos
from mythos_runtime.engine import Request
from mythos_runtime.engine.options import EngineOptions
from mythos_runtime.engine.row_cache import RowCache
from mythos_runtime.line_ports import device_files
from mythos_runtime.server.served import Served
from mythos_runtime.server.settings import Settings
from mythos_runtime.session import Options

LACK = triton_build.missing()
pytestmark = pytest.mark.skipif(LACK is not None, reason=str(LACK))


def test_what_cannot_be_compiled_is_refused_early(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TargetError, match="no kernels for SM 61, only for 80, 86"):
        check_request(find_target("cuda"), TargetOptions("fp16", sm="61,90"))
    with pytest.raises(TargetError, match="--plugins means nothing to --target cuda; it goes with --target tensorrt"):
        check_request(find_target("cuda"), TargetOptions("fp16", plugins=True))
    with pytest.raises(TargetError, match="fp8 kernels from SM 89 on, .* not for SM 80, 86; .* --precision int8"):
        check_request(find_target("cuda"), TargetOptions("fp8", sm="80,86,90"))
    check_request(find_target("cuda"), TargetOptions("fp8"))
    for other in ("onnx", "tensorrt"):
        with pytest.raises(TargetError, match="has no precision 'fp8', .*; it goes with --target cuda"):
            check_request(find_target(other), TargetOptions("fp8"))
    monkeypatch.setattr(triton_build, "missing", lambda: "triton is not installed")
    with pytest.raises(ToolMissing, match="--target cuda compiles Triton kernels, but triton is not installed"):
        check_request(find_target("cuda"), TargetOptions("fp16"))


# A process of its own: kernels are registered for good.
LAUNCHES = """
import importlib.metadata, json, sys
import numpy as np
from mythos_export.kernels import precompiled
from mythos_export.kernels.eager import register
from mythos_runtime import load
from mythos_runtime.torch_device import KERNELS_ENTRY_POINT

class Entry:  # as the installed package names it
    def load(self): return register

found = importlib.metadata.entry_points
importlib.metadata.entry_points = lambda **of: [Entry()] if of.get("group") == KERNELS_ENTRY_POINT else found(**of)
launched = {}
precompiled.find = lambda spec: launched.update({spec.name: spec.to_json()})
model = load(sys.argv[1], backend="eager", provider="cpu")
assert "interpreted" in model.session.description
model.forward(np.arange(24).reshape(2, 12), max_loops=2)
model.generate_all([[1, 2, 3], [7]], max_new_tokens=2)
print(json.dumps(list(launched.values())))
"""


@pytest.mark.slow
def test_a_bundle_holds_the_kernels_of_its_graph(tmp_path: Path) -> None:
    source = GOLDEN / "mla_decode" / "model.safetensors"
    path = export(source, tmp_path / "b", "cuda", sm="90", **config_of("mla_decode")).path
    manifest = read_manifest(path)
    (target,) = [target for target in manifest.targets if target.name == "cuda"]
    assert target.state == "built, not executed" and target.details["architectures"] == ["sm_90"]
    assert manifest.precision == "fp16"
    described = json.loads((path / "kernels" / "kernels.json").read_text())
    operators = {kernel["operator"] for kernel in described["kernels"]}
    assert operators == {"moe", "mla_attention", "act_halting", "paged_mla_attention", *BESIDE}
    assert all(kernel["binaries"][0]["spill_store_bytes"] == 0 for kernel in described["kernels"])
    kernels = {f"kernels/{name}" for name in triton_build.files_of(described)}
    assert {"rows.pt2", *kernels, *device_files()} == set(target.files)
    calls = {call["operator"]: call for call in described["calls"]}
    # Of the whole model's graph and the row graphs, for ONNX Runtime on CUDA.
    assert calls.keys() == {"moe", "mla_attention", "paged_mla_attention", "act_halting"}
    assert calls["moe"]["floats"] == "fp16" and calls["act_halting"]["floats"] == "fp32"
    if LIBRARY.exists():  # which reads what was written, and finds no driver here
        session = open_session(onnx.load(path / "model.onnx").SerializeToString(), path / "kernels")
        feeds = {value.name: fed(value) for value in session.get_inputs()}
        with pytest.raises(Exception, match="on a GPU: this needs an NVIDIA GPU with its driver"):
            session.run(None, feeds)
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    environment.pop("MYTHOS_TRITON", None)
    run = subprocess.run([sys.executable, "-c", LAUNCHES, str(path)], capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr
    launched = [KernelSpec.from_json(values) for values in json.loads(run.stdout.splitlines()[-1])]
    brought = {kernel["name"]: kernel for kernel in described["kernels"]}
    for spec in launched:  # the very same: nothing is left to be compiled where the bundle runs
        kernel = brought[spec.name]
        assert spec == KernelSpec.from_json({name: kernel[name] for name in KernelSpec.__dataclass_fields__})
    assert {spec.operator for spec in launched} == operators


@pytest.mark.slow
def test_float8_is_exported_verified_and_run(tmp_path: Path) -> None:
    """The graph's bodies beside the library's other kernels, and PyTorch's program, compute the rounded model; the
    engines of both give the same tokens."""
    exported = export(folder("hops"), tmp_path / "b", "cuda", precision="fp8", sm="89")
    assert exported.manifest.precision == "fp8" and exported.parity.passed
    ran = ("onnx", "rows", "rows, on lines", "row programs")
    assert {*ran} <= {stage.name for stage in exported.parity.stages if stage.state == "pass"}
    runners = exported.manifest.operators["mythos::moe (fp8)"]
    assert runners["ONNX Runtime, CPU"]["order"] == ["portable function body"]
    assert runners["PyTorch (model.pt2), CUDA"]["order"] == ["Triton kernels", "plain PyTorch"]
    described = json.loads((exported.path / "kernels" / "kernels.json").read_text())
    names = {kernel["name"] for kernel in described["kernels"]}
    assert any(name.startswith("linear_few_fp32") and name.endswith("-fp8") for name in names)
    onnx, model = load(exported.path), load(exported.path, backend="eager", provider="cpu")
    prompts = [[1, 2, 3], [7], list(range(9))]  # this model answers with one token
    got, expected = (each.generate_all(prompts, max_new_tokens=1) for each in (model, onnx))
    assert got.tokens == expected.tokens and got.depth == expected.depth


@pytest.mark.slow
def test_the_engine_runs_a_bundle_in_pytorch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exported and verified, loaded, generated with, served, compiled: the tokens and depths of ONNX Runtime."""
    source = GOLDEN / "gqa_prefill" / "model.safetensors"
    exported = export(source, tmp_path / "b", "cuda", precision="fp32", sm="90", **config_of("gqa_prefill"))
    assert "row programs" in {stage.name for stage in exported.parity.stages if stage.state == "pass"}
    onnx, model = load(exported.path), load(exported.path, backend="eager", provider="cpu")
    prompts = [[1, 2, 3], list(range(40)), [7]]
    expected, got = (each.generate_all(prompts, max_new_tokens=9, halt_threshold=0.7) for each in (onnx, model))
    assert got.tokens == expected.tokens and got.depth == expected.depth
    assert len({depth for row in expected.depth for depth in row}) > 1
    assert isinstance(model.new_cache(1, 8), RowCache)
    session: Any = model.session
    whole = len(session.device.weights)
    assert pool_of(model) and len(session.device.weights) == whole  # loaded once
    manifest = read_manifest(exported.path)
    options = {"backend": "eager", "options": Options(1, provider="cpu"), "engine": EngineOptions(memory=16 << 20)}
    served = Served.open(exported.path, manifest, Settings("m", most_loops=manifest.spec.trained_loops), **options)
    engine = served.take_engine()
    running = engine.submit(Request(prompts[1], 9, halt_threshold=0.7))
    while engine.busy:
        engine.tick()
    assert running.tokens == expected.tokens[1] and served.state == "built, not executed"
    if shutil.which("g++") is None:
        return
    out = str(tmp_path / "aoti")
    made = CliRunner().invoke(mythos, ["package", "aoti", str(exported.path), out, "--provider", "cpu", "--json"])
    assert made.exit_code == 0, made.output
    described = json.loads(made.stdout.splitlines()[-1])
    assert described["device"].startswith("cpu (") and described["compared"]["largest_distance"] < 1e-5
    assert described["compared"]["positions"] > 0 and "positions halt after as many loops" in made.stdout
    monkeypatch.setenv("MYTHOS_AOTI", out)
    again = load(exported.path, backend="eager", provider="cpu")
    got = again.generate_all(prompts, max_new_tokens=9, halt_threshold=0.7)
    assert got.tokens == expected.tokens and got.depth == expected.depth
    assert not set(Path(out).rglob("*.safetensors")) and sum(f.stat().st_size for f in Path(out).iterdir()) < 20 << 20
