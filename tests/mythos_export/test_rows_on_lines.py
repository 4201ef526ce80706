"""The row graphs on lines of pools: what they are refused to be made of, in what order they write, and that a defect in
one is caught."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from golden_bundles import Bundles
from onnx import NodeProto, TensorProto, helper

from mythos_export.errors import TargetError
from mythos_export.kernels.text import OPSET
from mythos_export.rows_on_lines import write_rows_on_lines
from mythos_export.targets.cuda_lines import write_lines
from mythos_export.verify import run
from mythos_export.verify.stages.row_lines import RowLines
from mythos_runtime.files import describe
from mythos_runtime.line_ports import ENCODED, device_files, rows_file, rows_on_lines
from mythos_runtime.manifest import read_manifest
from mythos_runtime.ports import Port, Ports, numpy_dtype
from mythos_runtime.row_ports import ENTER, LEAVE, STEP
from mythos_runtime.spec import LoopSpec


@pytest.mark.parametrize("name", ["encoded", "token"])
def test_a_state_that_is_called_as_what_is_kept_beside_the_states_is_refused(
    name: str, bundles: Bundles, tmp_path: Path
) -> None:
    spec = read_manifest(bundles["gqa_prefill"]).spec
    last = replace(spec.state[-1], name=name)
    with pytest.raises(TargetError, match=f"a state of the model is called {name}, as what is kept beside"):
        write_lines(replace(spec, state=(*spec.state, last)), tmp_path)


@pytest.mark.parametrize("name", ["lines", "h_pool", "out_pool_next", "seen", "lines/at"])
def test_a_value_that_is_called_as_one_that_is_added_is_refused(name: str, bundles: Bundles, tmp_path: Path) -> None:
    spec = read_manifest(bundles["gqa_prefill"]).spec
    folder = shutil.copytree(bundles["gqa_prefill"], tmp_path / "bundle")
    model = onnx.load(folder / "step.onnx", load_external_data=False)
    old = model.graph.node[0].output[0]
    for node in model.graph.node:
        for side in (node.input, node.output):
            side[:] = [name if value == old else value for value in side]
    onnx.save(model, folder / "step.onnx")
    with pytest.raises(TargetError, match=rf"a value of step.onnx is called {name}, as one of step_lines.onnx is"):
        write_rows_on_lines(spec, folder)


def crossed(spec: LoopSpec) -> tuple[LoopSpec, onnx.ModelProto]:
    """A step whose h is made of the answer that was, and whose answer is made of no answer, so that it could be written
    before it is read; and the spec."""
    kept = [port for port in spec.graphs[STEP].inputs if port.role in ("encoded", "state")]
    after = [port for port in spec.graphs[STEP].outputs if port.role == "state_next"]

    def node(name: str) -> NodeProto:
        if name == "out":
            return helper.make_node("Add", ["encoded", "encoded"], ["out_next"])
        if name == "h":
            return helper.make_node("Add", ["slow", "h"], ["h_next"])
        if name == "halted":
            return helper.make_node("Not", [name], [f"{name}_next"])
        return helper.make_node("Add", [name, name], [f"{name}_next"])

    def value(port: Port) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(
            port.name, helper.np_dtype_to_tensor_dtype(numpy_dtype(port.dtype)), port.dims
        )

    nodes = [node("out"), helper.make_node("Sqrt", ["out"], ["slow"])]
    nodes += [node(str(port.group)) for port in after if port.group != "out"]
    graph = helper.make_graph(nodes, "step", list(map(value, kept)), list(map(value, after)))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    graphs = {**spec.graphs, STEP: Ports(tuple(kept), tuple(after))}
    return replace(spec, graphs=graphs), model


def test_a_state_that_does_not_follow_from_itself_is_written_behind_its_reading(
    bundles: Bundles, tmp_path: Path
) -> None:
    """In pools that are input and output both."""
    spec, model = crossed(read_manifest(bundles["gqa_prefill"]).spec)
    folder = shutil.copytree(bundles["gqa_prefill"], tmp_path / "bundle")
    onnx.save(model, folder / "step.onnx")
    write_rows_on_lines(spec, folder)
    session = ort.InferenceSession(str(folder / rows_file(STEP)), providers=["CPUExecutionProvider"])
    random, lines, sizes = np.random.default_rng(0), np.array([4, 0, 2]), {"L": 6}
    pools = {
        str(port.group): random.integers(0, 2, [sizes.get(str(dim), dim) for dim in port.dims]).astype(
            numpy_dtype(port.dtype)
        )
        for port in rows_on_lines(spec)[STEP].inputs
        if port.role == "pool"
    }
    before = {name: pool.copy() for name, pool in pools.items()}
    binding = session.io_binding()
    values = {name: ort.OrtValue.ortvalue_from_numpy(pool) for name, pool in pools.items()}
    binding.bind_cpu_input("lines", lines)
    for name, pool in values.items():
        binding.bind_ortvalue_input(f"{name}_pool", pool)
        if name != ENCODED:
            binding.bind_ortvalue_output(f"{name}_pool_next", pool)
    binding.bind_output("seen", "cpu")
    session.run_with_iobinding(binding)
    assert np.array_equal(pools["out"][lines], 2 * before[ENCODED][lines])
    assert np.array_equal(pools["h"][lines], np.sqrt(before["out"][lines]) + before["h"][lines])
    seen = binding.get_outputs()[-1].numpy()
    assert np.array_equal(seen, np.stack([~before["halted"][lines], 2 * before["depth"][lines]], axis=1))
    assert np.array_equal(pools["h"][[1, 3, 5]], before["h"][[1, 3, 5]])


def nodes(model: onnx.ModelProto, kind: str, output: str) -> NodeProto:
    (found,) = (node for node in model.graph.node if node.op_type == kind and output in node.output[0])
    return found


def rows_of_another_state(model: onnx.ModelProto) -> None:
    nodes(model, "Gather", "out").input[0] = "h_pool"


def a_state_that_stays(model: onnx.ModelProto) -> None:
    nodes(model, "ScatterND", "cumulative_pool_next").input[2] = "cumulative"


def nobody_is_seen_to_halt(model: onnx.ModelProto) -> None:
    nodes(model, "Cast", "lines/number").input[0] = "last"


def every_line_anew(model: onnx.ModelProto) -> None:
    """What another position has is written over."""
    put = nodes(model, "ScatterND", "depth_pool_next")
    put.op_type, put.input[:] = "Mul", ["depth_pool", "depth_pool"]


def halted_from_the_start(model: onnx.ModelProto) -> None:
    shape = nodes(model, "ConstantOfShape", "lines/first halted")
    shape.attribute[0].t.CopyFrom(helper.make_tensor("value", TensorProto.BOOL, [1], [True]))


def early_answers_take_nothing(model: onnx.ModelProto) -> None:
    nodes(model, "Add", "lines/all").input[1] = "lines/sum"


def halted_answers_take_too(model: onnx.ModelProto) -> None:
    nodes(model, "And", "lines/takes").input[1] = "early"


@pytest.mark.parametrize(
    ("graph", "defect"),
    [
        (ENTER, halted_from_the_start),
        (STEP, rows_of_another_state),
        (STEP, a_state_that_stays),
        (STEP, nobody_is_seen_to_halt),
        (STEP, every_line_anew),
        (LEAVE, early_answers_take_nothing),
        (LEAVE, halted_answers_take_too),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_defect_is_caught(
    graph: str, defect: Callable[[onnx.ModelProto], None], bundles: Bundles, tmp_path: Path
) -> None:
    folder = shutil.copytree(bundles["mla_prefill"], tmp_path / "bundle")
    manifest = read_manifest(folder)
    write_lines(manifest.spec, folder)
    files = manifest.files | {file: describe(folder / file) for file in device_files()}
    manifest = replace(manifest, files=files)
    if graph == ENTER:  # once: that what is not planted is found sound
        assert not run.verify_bundle(folder, manifest, threads=1, kinds=(RowLines,)).failures
    model = onnx.load(folder / rows_file(graph), load_external_data=False)
    defect(model)
    onnx.save(model, folder / rows_file(graph))
    (failure,) = run.verify_bundle(folder, manifest, threads=1, kinds=(RowLines,)).failures
    assert failure.stage == "rows, on lines"
