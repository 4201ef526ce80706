"""What needs an NVIDIA GPU: `make test-gpu`. Written against the interfaces; no machine of this project has run it yet.

In a process of its own: other tests choose Triton's interpreter, for good.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from case_calls import calls_of_cases
from click.testing import CliRunner
from engines import pool_of
from golden_bundles import GOLDEN, Bundles, config_of
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_cases import CASES, Array, OperatorCase
from plugin_caller import CALLER, RUNNING, TYPES, Plugins, given_of, node_of
from safetensors.numpy import load_file

from benchmarks.gpu.record import Record
from benchmarks.gpu.run import Run
from mythos_export import export
from mythos_export.kernels import triton_build
from mythos_export.kernels.beside import BESIDE
from mythos_export.kernels.cuda.signatures import described
from mythos_export.kernels.op import OPERATORS
from mythos_export.targets.tensorrt_build.environment import gpu_capabilities
from mythos_export.targets.tensorrt_build.limits import RTX_SMS
from mythos_model.formats import PLAIN
from mythos_runtime import load
from mythos_runtime.cli import mythos
from mythos_runtime.cuda_ops import CUDA_OPS
from mythos_runtime.eager import DEVICE_LOOP
from mythos_runtime.engine.ort_device.graphs import OrtGraphs
from mythos_runtime.stores import HostStore

GPUS = gpu_capabilities()
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not GPUS, reason="there is no NVIDIA GPU: nothing of this was executed"),
    pytest.mark.skipif(INTERPRETED, reason="this process runs Triton's interpreter; make test-gpu does not"),
]
needs_torch = pytest.mark.skipif(not torch.cuda.is_available(), reason=f"torch {torch.__version__} is no CUDA build")
TOLERANCE = {"float32": 1e-5, "float16": 5e-3}


def on_gpu(case: OperatorCase) -> dict[str, torch.Tensor]:
    """The case's inputs; only finite numbers in the chunk, where a kernel may multiply what it then masks."""
    values = {k: np.nan_to_num(v, nan=3.0) if k == "chunk" else v for k, v in case.inputs.items()}
    return {k: torch.from_numpy(np.array(v)).cuda() for k, v in values.items()}


def in_a_plugin(case: OperatorCase, folder: Path) -> tuple[Array, ...]:
    """The plug-in called as TensorRT calls it: cubins built ahead of time, through the driver."""
    calls = calls_of_cases([case])
    plans = calls[0][1]
    specs = list({spec.name: spec for plan in plans for spec in plan.launches}.values())
    triton_build.build(specs, [GPUS[0]], folder, plans=plans, more=described(calls))
    plugins = Plugins()
    plugin = plugins.create(case.op, node_of(plugins, case, calls, folder).fields(), RUNNING).attach()
    tensors = list(on_gpu(case).values())
    inputs = [given_of(tensor) for tensor in tensors]
    named = {type: getattr(torch, name) for name, type in TYPES.items()}
    kinds = plugin.outputs(inputs, len(OPERATORS[case.op].outputs))
    outputs = [torch.zeros(shape, dtype=named[kind], device="cuda") for kind, shape in kinds]
    plugin.run(inputs, [given_of(out) for out in outputs], torch.cuda.current_stream().cuda_stream)
    return tuple(out.cpu().numpy() for out in outputs)


@needs_torch
@pytest.mark.skipif(not CALLER.exists(), reason=f"{CALLER.name} is not built: make native")
@pytest.mark.parametrize("op", ["moe", "mla_attention", "gqa_attention", "act_halting"])
def test_plugins_compute_what_the_reference_computes(op: str, tmp_path: Path) -> None:
    @settings(max_examples=6, deadline=None)
    @given(st.data())
    def check(data: Any) -> None:
        case = data.draw(CASES[op, PLAIN])
        assert case.distance(in_a_plugin(case, tmp_path)) < TOLERANCE[np.dtype(case.dtype).name]

    check()


PRECISIONS = ("fp32", "fp16", "bf16")
_ATTENTIVE = ("moe", "mla_attention", "gqa_attention", "paged_mla_attention", "paged_gqa_attention")


@needs_torch
@pytest.mark.parametrize(
    ("part", "piece"),
    [
        *[("kernels", f"{op}-{p}") for op in (*_ATTENTIVE, *BESIDE) for p in PRECISIONS],
        *[("kernels", f"{op}:{form}-fp16") for op in ("moe", "linear") for form in ("int8", "int4", "fp8")],
        *[("kernels", f"{op}-fp32") for op in ("act_halting", "rounded_line")],
        *[("kernels", f"{op}:int8 pages-fp32") for op in _ATTENTIVE[3:]],
        *[("sizes", f"{variant}-{p}") for variant in ("1b", "10b", "100b") for p in PRECISIONS],
        ("loop", ""),
        ("models", ""),
        ("rows", "equal"),
    ],
)
def test_a_part_of_the_benchmark_finds_nothing_out_of_bounds(part: str, piece: str) -> None:
    """Kernels in every precision, drawn and at real sizes; the loop as CUDA graphs; the whole 1b with equal depths; the
    engine on the device."""
    run = Run(Record(None), False, piece, 0, 0.0, Path(), 3.35e12, 800e12)
    importlib.import_module(f"benchmarks.gpu.{part}").main(run)
    assert run.record.found and not run.record.failed, run.record.found


@needs_torch
@pytest.mark.parametrize("way", ["1", "compiled"])
def test_the_loop_of_a_program_halts_on_the_device(way: str, bundles: Bundles, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = np.arange(12).reshape(2, 6)
    plain = load(bundles["mla_prefill"], backend="eager", provider="cuda")
    monkeypatch.setenv(DEVICE_LOOP, way)
    looped = load(bundles["mla_prefill"], backend="eager", provider="cuda")
    for threshold in (0.5, 0.99, 2.0):
        found, expected = (model.forward(ids, halt_threshold=threshold) for model in (looped, plain))
        assert np.abs(found.logits - expected.logits).max() <= 1e-4 * np.abs(expected.logits).max()
        assert np.array_equal(found.depth, expected.depth) and found.loops == expected.loops


@needs_torch
def test_caches_stay_on_the_device(bundles: Bundles) -> None:
    model, plain = (load(bundles["gqa_prefill"], backend="eager", provider=name) for name in ("cuda", "cpu"))
    assert not isinstance(model.session.store, HostStore)
    caches = [each.new_cache(2, 16, policy="full") for each in (model, plain)]
    rows = np.random.default_rng(0).integers(0, 50, (2, 12))
    for chunk in (rows[:, :7], rows[:, 7:11], rows[:, 11:]):
        found, expected = (m.forward(chunk, cache=cache) for m, cache in zip((model, plain), caches, strict=True))
        assert np.abs(found.logits - expected.logits).max() <= 1e-4 * np.abs(expected.logits).max()
        assert np.array_equal(found.depth, expected.depth)


@needs_torch
@pytest.mark.parametrize("case", ["mla_prefill", "gqa_prefill", "mla_deeper_than_trained"])
def test_the_captured_program_runs_on_the_gpu(case: str, bundles: Bundles) -> None:
    model = load(bundles[case], backend="eager", provider="cuda")
    assert "Triton" in model.session.description
    io = load_file(GOLDEN / case / "io.safetensors")
    loops = json.loads((GOLDEN / case / "case.json").read_text())["n_loops"]
    out = model.forward(io["input_ids"].astype(np.int64), max_loops=loops)
    assert np.abs(out.logits - io["logits"]).max() <= 1e-4 * np.abs(io["logits"]).max()  # float32, TF32 off
    assert np.array_equal(out.depth, io["halting_depth"])


@needs_torch
def test_row_graphs_compiled_ahead_of_time_generate_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, sm = GOLDEN / "mla_decode" / "model.safetensors", str(GPUS[0])
    bundle = export(source, tmp_path / "b", "cuda", precision="fp32", sm=sm, **config_of("mla_decode")).path
    out = str(tmp_path / "aoti")
    made = CliRunner().invoke(mythos, ["package", "aoti", str(bundle), out, "--provider", "cuda", "--json"])
    assert made.exit_code == 0, made.output
    assert json.loads(made.stdout.splitlines()[-1])["compared"]["largest_distance"] < 1e-4
    prompts = [list(range(3, 9)), list(range(20, 23))]
    plain = load(bundle, backend="eager", provider="cuda").generate_all(prompts, max_new_tokens=9)
    monkeypatch.setenv("MYTHOS_AOTI", out)
    found = load(bundle, backend="eager", provider="cuda").generate_all(prompts, max_new_tokens=9)
    assert found.tokens == plain.tokens and found.depth == plain.depth


@pytest.mark.parametrize("plugins", [False, True], ids=["decomposition", "plug-ins"])
def test_an_engine_computes_what_onnx_runtime_does(plugins: bool, tmp_path: Path) -> None:
    if GPUS[0] not in RTX_SMS and importlib.util.find_spec("tensorrt") is None:
        pytest.skip(f"TensorRT-RTX has no SM {GPUS[0]}, and full TensorRT is not installed")
    source, sm = GOLDEN / "mla_decode" / "model.safetensors", str(GPUS[0])
    bundle = export(source, tmp_path / "b", "tensorrt", sm=sm, plugins=plugins, **config_of("mla_decode")).path
    engine, onnx = load(bundle, backend="tensorrt"), load(bundle, backend="onnxruntime", provider="cpu")
    rows = np.random.default_rng(0).integers(0, engine.config.vocab_size, (2, 12))
    caches = [model.new_cache(2, 16) for model in (engine, onnx)]
    for chunk in (rows[:, :7], rows[:, 7:11], rows[:, 11:]):  # prefill, a chunk behind it, one token
        found, expected = (m.forward(chunk, cache=cache) for m, cache in zip((engine, onnx), caches, strict=True))
        assert np.abs(found.logits - expected.logits).max() <= 2e-2 * np.abs(expected.logits).max()  # float16
        assert np.array_equal(found.depth, expected.depth) and found.loops == expected.loops


@needs_torch
@pytest.mark.parametrize("case", ["mla_decode", "gqa_prefill"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_engine_in_onnx_runtime_on_the_bundles_kernels(
    case: str, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tokens and depths of the CPU, generated by a bundle of target cuda without PyTorch."""
    runtime = importlib.import_module("onnxruntime")
    if "CUDAExecutionProvider" not in runtime.get_available_providers():
        pytest.skip("this is not onnxruntime-gpu")
    source, sm = GOLDEN / case / "model.safetensors", str(GPUS[0])
    bundle = export(source, tmp_path / "b", "cuda", precision=precision, sm=sm, **config_of(case)).path
    prompts = [[1, 2, 3], list(range(40)), [7]]
    expected = load(bundle, provider="cpu").generate_all(prompts, max_new_tokens=6, halt_threshold=0.7)
    monkeypatch.setenv(CUDA_OPS, "1")
    model = load(bundle, provider="cuda")
    assert "on the bundle's kernels" in model.session.description
    got = model.generate_all(prompts, max_new_tokens=6, halt_threshold=0.7)
    assert isinstance(pool_of(model).core.graphs, OrtGraphs)
    assert got.tokens == expected.tokens and got.depth == expected.depth


def test_onnx_runtime_on_the_gpu(bundles: Bundles) -> None:
    runtime = importlib.import_module("onnxruntime")
    if "CUDAExecutionProvider" not in runtime.get_available_providers():
        pytest.skip("this is not onnxruntime-gpu")
    ids = np.arange(12).reshape(2, 6)
    found, expected = (load(bundles["mla_prefill"], provider=name).forward(ids) for name in ("cuda", "cpu"))
    assert np.abs(found.logits - expected.logits).max() <= 1e-3 * np.abs(expected.logits).max()  # TF32 may be on
    assert np.array_equal(found.depth, expected.depth)
