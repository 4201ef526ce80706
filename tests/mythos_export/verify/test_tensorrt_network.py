"""TensorRT's own reading of the graph, run on the CPU: every layer type of the exported graphs, in both attentions."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import defects
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from golden_bundles import GOLDEN, Bundles, config_of

from mythos_export import export
from mythos_export.errors import ParityError
from mythos_export.targets.tensorrt import GRAPH, PASSES
from mythos_export.verify import run
from mythos_export.verify.cases import without_cache
from mythos_export.verify.parity import Parity
from mythos_export.verify.stages.network import Network
from mythos_export.verify.stages.onnxruntime import TensorRTGraph
from mythos_export.verify.tensorrt_network.layers import LOOP_CLASSES, MAKERS
from mythos_export.verify.tensorrt_network.process import NetworkProcess
from mythos_runtime import read_manifest
from mythos_runtime.files import describe

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: pip install tensorrt-rtx-cu13")


def with_tensorrt_graph(bundle: Path, folder: Path, defect: defects.Defect | None = None) -> Path:
    """A copy of a bundle with TensorRT's graph in it, but no engine, which takes longer to build."""
    shutil.copytree(bundle, folder)
    model = ir.load(folder / "model.onnx")
    for run_pass in PASSES:
        run_pass(model)
    ir.save(model, folder / GRAPH)
    if defect is not None:
        graph = onnx.load(folder / GRAPH, load_external_data=False)
        defect(graph)
        onnx.save(graph, folder / GRAPH)
    return folder


def verify(folder: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Parity:
    monkeypatch.setattr(run, "STAGES", (TensorRTGraph, Network))
    manifest = read_manifest(bundle)
    manifest = dataclasses.replace(manifest, files={**manifest.files, GRAPH: describe(folder / GRAPH)})
    return run.verify_bundle(folder, manifest, threads=1)


@pytest.mark.parametrize(
    ("case", "precision"), [("mla_prefill", "fp32"), ("gqa_prefill", "fp32"), ("gqa_decode", "fp16")]
)
def test_the_network_computes_what_the_model_computes(
    case: str, precision: str, bundles: Bundles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prefill, chunks and tokens with a cache are among the golden cases of every bundle."""
    if precision == "fp32":
        bundle = bundles[case]
    else:
        source = GOLDEN / case / "model.safetensors"
        bundle = export(source, tmp_path / "source", precision=precision, **config_of(case)).path
    folder = with_tensorrt_graph(bundle, tmp_path / "bundle")
    parity = verify(folder, bundle, monkeypatch)
    assert parity.passed, parity.verdict()
    network = parity.stages[-1]
    assert network.name == "tensorrt network" and network.state == "pass"
    assert len(network.results) == len(parity.stages[0].results)
    assert [r.loops for r in network.results] == [r.loops for r in parity.stages[0].results]
    assert all(result.errors["h"] for result in network.results if result.loops)  # it was looked inside
    assert network.generated is not None and not network.generated.wrong
    with NetworkProcess("tensorrt_rtx", folder / GRAPH) as process:
        assert process.kinds.keys() <= {*MAKERS, *LOOP_CLASSES}
        assert process.kinds["TRIP_LIMIT"] == 1


def test_a_defect_in_the_lowering_shows_in_the_network(
    bundles: Bundles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = bundles["mla_prefill"]
    folder = with_tensorrt_graph(bundle, tmp_path / "bundle", defects.swapped_gate_and_up)
    failures = verify(folder, bundle, monkeypatch).failures
    assert [failure.stage for failure in failures] == ["tensorrt graph", "tensorrt network"]
    assert [failure.problem.tensor for failure in failures] == ["h", "h"]
    assert [failure.problem.iteration for failure in failures] == [1, 1]
    # The network is as wrong as its graph; both still have the portable graph's name for what the experts add up to.
    for failure in failures:
        assert str(failure.operator).startswith("Reshape (") and str(failure.operator).endswith(" -> moe")


def test_a_graph_that_tensorrt_refuses_is_a_plain_error(bundles: Bundles, tmp_path: Path) -> None:
    with pytest.raises(ParityError, match="model.onnx cannot be read or run"):
        NetworkProcess("tensorrt_rtx", bundles["mla_prefill"] / "model.onnx")  # its own operators are no plugins


def test_a_call_that_cannot_be_computed_names_the_layer(bundles: Bundles, tmp_path: Path) -> None:
    folder = with_tensorrt_graph(bundles["mla_prefill"], tmp_path / "bundle")
    inputs = without_cache(read_manifest(folder).spec, np.zeros((1, 2), np.int64), loops=1)
    inputs["positions"] = np.zeros((1, 3), np.int64)  # one more than there are ids
    with NetworkProcess("tensorrt_rtx", folder / GRAPH) as process, pytest.raises(ParityError, match="on shapes"):
        process.run(inputs)
