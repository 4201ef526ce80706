"""The engine in ONNX Runtime on the compiled kernels' launcher, with a stand-in for the driver. On no GPU."""

from __future__ import annotations

import importlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from engines import pool_of
from golden_bundles import Bundles
from stand_in_gpu import LIBRARY
from stand_in_process import check

from mythos_export.targets.cuda_lines import write_lines
from mythos_runtime import load, read_manifest
from mythos_runtime.cuda_ops import CUDA_OPS, rows_on_cuda
from mythos_runtime.engine import Request, open_engine
from mythos_runtime.engine.bundled import runs_on_cuda
from mythos_runtime.engine.options import EngineOptions
from mythos_runtime.engine.ort_device import opening
from mythos_runtime.engine.ort_device.device import OrtDevice
from mythos_runtime.engine.ort_device.graphs import OrtGraphs
from mythos_runtime.engine.ort_device.opening import open_cuda_rows
from mythos_runtime.errors import BackendMissing, BundleError
from mythos_runtime.files import describe
from mythos_runtime.linked import Links
from mythos_runtime.op_library import find_op_library
from mythos_runtime.ort import OrtSession
from mythos_runtime.ports import Ports
from mythos_runtime.session import Options
from mythos_runtime.shards.entry import ExpertShards

PROVIDERS = ["CUDAExecutionProvider", "CPUExecutionProvider"]


@pytest.mark.slow
@pytest.mark.skipif(not LIBRARY.exists(), reason=f"{LIBRARY.name} is not built: make native")
@pytest.mark.skipif(find_op_library() is None, reason="the native operators are not built: make native")
@pytest.mark.parametrize(
    "asked",  # a model, its precision and, where they are int8, its caches
    [
        *("mla_decode:fp32", "gqa_prefill:fp32", "mla_decode:int8", "gqa_prefill:int4"),
        *("mla_decode:fp16", "gqa_prefill:fp16", "mla_decode:fp32:int8", "gqa_prefill:int4:int8"),
    ],
)
def test_tokens_and_depths_are_those_of_the_cpu(asked: str) -> None:
    check("engine_ops.py", asked=(asked,))


def test_it_is_taken_where_the_kernels_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("onnxruntime"), "get_available_providers", lambda: PROVIDERS)
    assert not rows_on_cuda(Options(provider="cuda"))
    monkeypatch.setenv(CUDA_OPS, "1")
    assert rows_on_cuda(Options(provider="cuda")) and rows_on_cuda(Options())
    assert not rows_on_cuda(Options(provider="cpu")) and not rows_on_cuda(Options(op_library=None))
    monkeypatch.setattr(importlib.import_module("onnxruntime"), "get_available_providers", lambda: PROVIDERS[1:])
    assert rows_on_cuda(Options(provider="cuda")) and not rows_on_cuda(Options())  # named, it is missing


def test_experts_in_shards_run_there_where_it_is_named(bundles: Bundles, monkeypatch: pytest.MonkeyPatch) -> None:
    """And are refused; what is served says the state of the same target."""
    monkeypatch.setattr(importlib.import_module("onnxruntime"), "get_available_providers", lambda: PROVIDERS)
    monkeypatch.setenv(CUDA_OPS, "1")
    whole = read_manifest(bundles["gqa_prefill"])
    parts = replace(whole, shards=ExpertShards((), {}))
    assert runs_on_cuda(whole, Options()) and not runs_on_cuda(parts, Options())
    assert runs_on_cuda(parts, Options(provider="cuda"))


@pytest.fixture
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is opened on CUDA is on the CPU."""

    def open_graph(file: Path, ports: Ports, options: Options) -> OrtSession:
        assert options.provider == "cuda"
        assert (options.op_library is None) == (file.parent.name == "lines")
        return OrtSession(file, ports, Options(1, provider="cpu"))

    monkeypatch.setattr(opening, "OrtDevice", lambda name: OrtDevice({"cuda": "cpu"}[name]))
    monkeypatch.setattr(opening, "OrtSession", open_graph)
    monkeypatch.setenv(CUDA_OPS, "1")


def test_a_bundle_is_opened_on_it(bundles: Bundles, tmp_path: Path, on_the_cpu: None) -> None:
    """For the engine, and for a model that is on CUDA; without the graphs that move lines the bundle is refused."""
    bundle, there = tmp_path / "b", Options(provider="cuda")
    shutil.copytree(bundles["gqa_prefill"], bundle)
    with pytest.raises(BundleError, match=r"b has no enter_lines.onnx, .*; export the model again with --target cuda"):
        open_engine(bundle, EngineOptions(memory=16 << 20), options=there)
    with pytest.raises(BackendMissing, match=r"b has its weights in files outside of the bundle, .*: take prov"):
        open_cuda_rows(bundle, replace(read_manifest(bundle), links=Links((), {})), there)
    described = json.loads((bundle / "manifest.json").read_text())
    for file in write_lines(read_manifest(bundle).spec, bundle):
        described["files"][file] = vars(describe(bundle / file))
    (bundle / "manifest.json").write_text(json.dumps(described))
    expected = load(bundle, provider="cpu").generate_all([[1, 2, 3]], max_new_tokens=4, halt_threshold=0.7)
    engine = open_engine(bundle, EngineOptions(memory=16 << 20), options=there)
    assert isinstance(engine.core.graphs, OrtGraphs)
    running = engine.submit(Request([1, 2, 3], 4, halt_threshold=0.7))
    while engine.busy:
        engine.tick()
    assert running.tokens == expected.tokens[0] and running.depth == expected.depth[0]
    model: Any = load(bundle, provider="cpu", engine="python")
    model.rows._options = there
    got = model.generate_all([[1, 2, 3]], max_new_tokens=4, halt_threshold=0.7)
    assert isinstance(pool_of(model).core.graphs, OrtGraphs)
    assert got.tokens == expected.tokens and got.depth == expected.depth
