"""Exports with int8 and int4 weights, through both runtimes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from golden_bundles import Bundles

from mythos_export import export
from mythos_export.verify import run
from mythos_export.verify.stages.onnxruntime import CpuKernels, FunctionBodies
from mythos_model.pretrained import folder
from mythos_runtime import load, read_manifest
from mythos_runtime.op_library import find_op_library

CASES = {"int8": "gqa_decode, int8", "int4": "hops, int4"}


@pytest.mark.parametrize("form", CASES)
def test_the_graph_multiplies_by_integers_only(form: str, bundles: Bundles) -> None:
    bundle = bundles[CASES[form]]
    manifest = read_manifest(bundle)
    assert (manifest.precision, manifest.targets[0].state) == (form, "verified")
    assert f"mythos::moe ({form})" in manifest.operators
    graph = onnx.load(bundle / "model.onnx", load_external_data=False)
    body = next(a.g for node in graph.graph.node if node.op_type == "Loop" for a in node.attribute if a.name == "body")
    nodes = [*graph.graph.node, *body.node]
    ours = [node for node in nodes if node.op_type in ("linear", "moe", "embedding")]
    assert {node.op_type for node in ours} == {"linear", "moe", "embedding"}
    formats = {attribute.s.decode() for node in ours for attribute in node.attribute if attribute.name == "format"}
    assert formats == {form}
    products = [node for node in body.node if node.op_type in ("MatMul", "Gemm")]
    assert len(products) == 3  # the router and LoRA's two stay float32
    assert not [node for node in graph.graph.node if node.op_type in ("MatMul", "Gemm")]


@pytest.mark.parametrize("native", [False, True], ids=["function bodies", "CPU kernels"])
@pytest.mark.parametrize("form", CASES)
def test_token_by_token_as_all_at_once(form: str, native: bool, bundles: Bundles) -> None:
    if native and find_op_library() is None:
        pytest.skip("the CPU kernels are not built: make native")
    model = load(bundles[CASES[form]], op_library="auto" if native else None, threads=1)
    ids = np.random.default_rng(0).integers(0, 64, (2, 7))
    whole = model.forward(ids, max_loops=6, cache=model.new_cache(batch=2, capacity=7, max_loops=6))
    cache = model.new_cache(batch=2, capacity=7, max_loops=6)
    for t in range(7):
        out = model.forward(ids[:, t : t + 1], max_loops=6, cache=cache)
        assert np.abs(out.logits[:, 0] - whole.logits[:, t]).max() <= 2e-5 * np.abs(whole.logits).max()
        assert np.array_equal(out.depth[:, 0], whole.depth[:, t])


@pytest.mark.slow
def test_activations_in_int8_are_verified_and_the_report_says_how_much_that_rests_on(tmp_path: Path) -> None:
    exported = export(folder("hops"), tmp_path / "bundle", precision="int4", activations="int8")
    assert exported.parity is not None and exported.manifest.precision == "int4a8"
    assert exported.manifest.targets[0].state == "verified"
    assert "int4a8 has to allow more than 10% of a tensor's scale" in exported.parity.basis.sentence()
    model = load(exported.path, threads=1)
    ids = np.random.default_rng(0).integers(0, 64, (1, 7))
    whole = model.forward(ids, max_loops=3).logits
    other = load(exported.path, threads=2).forward(np.repeat(ids, 2, 0), max_loops=3).logits
    assert np.array_equal(whole[0], other[0]) and np.array_equal(whole[0], other[1])

    # An artifact that rounds no activations is within every tolerance, and is told by what it is equal to.
    graph = onnx.load(exported.path / "model.onnx", load_external_data=False)
    body = next(a.g for node in graph.graph.node if node.op_type == "Loop" for a in node.attribute if a.name == "body")
    for node in (*graph.graph.node, *body.node):
        for attribute in node.attribute:
            if attribute.name == "format":
                attribute.s = b"int4"
    onnx.save(graph, exported.path / "model.onnx")
    if find_op_library() is None:
        pytest.skip("the CPU kernels, which take the format at its word, are not built: make native")
    (failure,) = run.verify_bundle(exported.path, exported.manifest, threads=1, kinds=(CpuKernels,)).failures
    assert failure.problem.text.endswith("are those of a model that rounds no activations")


def test_a_wrong_body_is_found(bundles: Bundles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """int4 unpacked as if the high halves of the bytes came first."""
    bundle = shutil.copytree(bundles[CASES["int4"]], tmp_path / "bundle")
    monkeypatch.setattr(run, "STAGES", (FunctionBodies,))  # only now: the bundle may have been exported for this test
    model = onnx.load(bundle / "model.onnx", load_external_data=False)
    body = next(function for function in model.functions if function.name == "linear")
    joined = next(node for node in body.node if node.op_type == "Concat" and node.output[0].endswith("_quads"))
    joined.input[:] = reversed(joined.input)
    onnx.save(model, bundle / "model.onnx")
    (failure,) = run.verify_bundle(bundle, read_manifest(bundles[CASES["int4"]]), threads=1).failures
    assert failure.operator is not None and "mythos::linear" in failure.operator
