"""Exports with int8 caches: what refuses them, and one bundle on every road."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from cpp_programs import RUN
from golden_bundles import GOLDEN, config_of
from small_spec import spec as small_spec

from mythos_export import export
from mythos_export.errors import ExportError, PackageError, TargetError
from mythos_export.kernels import triton_build
from mythos_export.precision import is_int8_cache
from mythos_export.targets.registry import find_target
from mythos_export.targets.target import TargetOptions, check_request
from mythos_export.verify import run
from mythos_export.verify.stages.onnxruntime import FunctionBodies
from mythos_export.verify.stages.rows import RowBodies
from mythos_model.pretrained import folder
from mythos_runtime import load, read_manifest
from mythos_runtime.dense import DenseCache
from mythos_runtime.engine.memory import position_bytes
from mythos_runtime.engine.row_cache import RowCache
from mythos_runtime.op_library import find_op_library


def test_a_target_that_reads_floats_refuses_it() -> None:
    with pytest.raises(
        TargetError, match=r"means nothing to --target tensorrt.*goes with --target (onnx|cuda) or \w+$"
    ):
        check_request(find_target("tensorrt"), TargetOptions("fp32", int8_cache=True))
    for target in ("onnx", "cuda"):
        assert "int8_cache" in find_target(target).options
    with pytest.raises(TargetError, match="--expert-shards do not go together so far: leave one of them out"):
        check_request(find_target("onnx"), TargetOptions("fp32", expert_shards=2, int8_cache=True))


def test_precisions_without_such_caches_say_what_to_do() -> None:
    assert not is_int8_cache("fp16", None) and not is_int8_cache("int4", "fp32") and is_int8_cache("int4", "int8")
    for cache in ("int8", "fp32"):
        with pytest.raises(
            PackageError, match=f"found --cache {cache} at --precision fp16.*--precision fp32, int8 or int4"
        ):
            is_int8_cache("fp16", cache)
    for precision in ("int8a8", "int4a8"):
        assert not is_int8_cache(precision, "fp32")
        with pytest.raises(
            PackageError, match=f"int8 at --precision {precision}, which rounds activations.*leave --cache out"
        ):
            is_int8_cache(precision, "int8")
    with pytest.raises(PackageError, match="--precision auto do not go together.*choose --precision fp32"):
        is_int8_cache("auto", "int8")
    with pytest.raises(PackageError, match="found --cache fp8; expected fp32 or int8"):
        is_int8_cache("fp32", "fp8")
    with pytest.raises(ExportError, match="at --precision fp16"):
        export(folder("hops"), "nowhere", precision="fp16", cache="int8")
    with pytest.raises(ExportError, match="at --precision int8a8, which rounds activations"):
        export(folder("hops"), "nowhere", precision="int8", activations="int8", cache="int8")
    with pytest.raises(TargetError, match="means nothing to --target tensorrt"):  # whatever its precision is by default
        export(folder("hops"), "nowhere", target="tensorrt", cache="int8")
    assert not small_spec().int8_cache


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "int4"])
def test_a_bundle_is_the_same_model_on_every_road(precision: str, tmp_path: Path) -> None:
    exported = export(folder("text"), tmp_path / "bundle", precision=precision, cache="int8")
    assert exported.parity is not None and exported.manifest.targets[0].state == "verified"
    spec = read_manifest(exported.path).spec
    assert spec.int8_cache and "mythos::rounded_line" in exported.manifest.operators
    assert "mythos::paged_gqa_attention (int8 pages)" in exported.manifest.operators or (
        "mythos::paged_mla_attention (int8 pages)" in exported.manifest.operators
    )
    loops = spec.trained_loops
    parts = {group.name: group for group in spec.caches}
    lines = sum(group.slots * group.page_width * (loops if group.per_loop else 1) for group in parts.values())
    whole = sum(4 * group.slots * group.width * (loops if group.per_loop else 1) for group in parts.values())
    assert position_bytes(spec, loops) == lines < 0.3 * whole

    if find_op_library() is None:
        pytest.skip("the CPU kernels are not built: make native")
    ids = np.random.default_rng(0).integers(0, spec.vocab_size, (2, 40))
    with load(exported.path, threads=1) as model:
        paged = model.new_cache(batch=2, capacity=40)
        at_once = model.forward(ids, cache=paged)
        assert paged.nbytes < 0.5 * DenseCache(2, 40, spec).nbytes
        one = model.new_cache(batch=2, capacity=40)
        chunks = [model.forward(ids[:, at : at + 8], cache=one) for at in range(0, 40, 8)]
        assert np.array_equal(np.concatenate([each.logits for each in chunks], 1), at_once.logits)
        dense = model.forward(ids)  # the whole model's graph, whose lines are rounded floats
        off = np.linalg.norm(dense.logits - at_once.logits) / np.linalg.norm(dense.logits)
        assert off < 2e-3
        tokens = [step.tokens[0] for step in model.generate(ids[:1], max_new_tokens=16)]
    if RUN.is_file():
        said = [RUN, exported.path, "--ids", ",".join(map(str, ids[0])), "--max-new-tokens", "16", "--json"]
        answer: Any = json.loads(
            subprocess.run(said, capture_output=True, check=True, text=True).stdout.splitlines()[-1]
        )
        assert answer["tokens"] == [int(token) for token in tokens]


@pytest.mark.slow
@pytest.mark.parametrize("case", ["mla_prefill", "gqa_prefill"])
def test_a_bundle_for_gpus_holds_the_kernels_over_int8_pages(case: str, tmp_path: Path) -> None:
    """Exported and verified; the engine in PyTorch on the CPU gives the tokens and depths of ONNX Runtime's."""
    if lack := triton_build.missing():
        pytest.skip(lack)
    source = GOLDEN / case / "model.safetensors"
    exported = export(source, tmp_path / "b", "cuda", precision="fp32", cache="int8", sm="90", **config_of(case))
    assert exported.parity is not None and exported.parity.passed
    states = {stage.name: stage.state for stage in exported.parity.stages}
    assert {states[name] for name in ("onnx", "program", "rows", "rows, on lines", "row programs")} == {"pass"}
    manifest = exported.manifest
    paged = f"paged_{case.partition('_')[0]}_attention"
    assert manifest.spec.int8_cache
    for label in ("mythos::rounded_line", f"mythos::{paged} (int8 pages)"):
        assert manifest.operators[label]["PyTorch (model.pt2), CUDA"]["order"] == ["Triton kernels", "plain PyTorch"]
    described = json.loads((exported.path / "kernels" / "kernels.json").read_text())
    kernels = {name: [k for k in described["kernels"] if k["operator"] == name] for name in (paged, "rounded_line")}
    sources = {kernel["source"].partition(":")[2] for kernel in kernels[paged]}
    assert {"append_rounded_kernel", "paged_split_kernel"} <= sources and "append_kernel" not in sources
    assert all("-int8-pages" in kernel["name"] for kernel in kernels[paged])
    (group, *_) = manifest.spec.caches
    assert {k["constants"]["WIDTH"] for k in kernels["rounded_line"]} == set(group.rounded)
    assert all(binary["spill_store_bytes"] == 0 for k in described["kernels"] for binary in k["binaries"])
    assert {paged, "rounded_line"} <= {call["operator"] for call in described["calls"]}  # for ONNX Runtime on CUDA

    ours, model = load(exported.path), load(exported.path, backend="eager", provider="cpu")
    prompts = [[1, 2, 3], list(range(40)), [7]]
    expected, got = (each.generate_all(prompts, max_new_tokens=9, halt_threshold=0.7) for each in (ours, model))
    assert got.tokens == expected.tokens and got.depth == expected.depth
    assert len({depth for row in expected.depth for depth in row}) > 1
    assert isinstance(model.new_cache(1, 8), RowCache)


@pytest.mark.slow
def test_an_artifact_that_does_not_round_is_found(tmp_path: Path) -> None:
    exported = export(folder("hops"), tmp_path / "bundle", cache="int8")
    for name, kind in (("model.onnx", FunctionBodies), ("enter.onnx", RowBodies)):
        path = exported.path / name
        sound = path.read_bytes()
        model = onnx.load(path, load_external_data=False)
        for function in model.functions:
            if function.name == "rounded_line":
                del function.node[:]
                function.node.append(onnx.helper.make_node("Identity", ["x"], ["out"]))
        onnx.save(model, path)
        failures = run.verify_bundle(exported.path, exported.manifest, threads=1, kinds=(kind,)).failures
        path.write_bytes(sound)
        if kind is FunctionBodies:
            assert failures and "not rounded to int8" in failures[0].problem.text
        else:  # pages round what they are given, whoever gives it
            assert not failures
