"""Bodies are those of the calls: two mixtures of experts of other sizes in one graph get a body each."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import onnxruntime as ort  # type: ignore[import-untyped]
import pytest
from cpu_ops import LIBRARY, session
from onnx import TensorProto, helper, numpy_helper
from product_cases import Array, linear_inputs, moe_inputs

from mythos_export.errors import LowerError
from mythos_export.kernels.linear.reference import linear
from mythos_export.kernels.moe.reference import moe
from mythos_export.kernels.op import calls_of
from mythos_export.passes.attach_functions import attach_functions, attach_tensorrt_functions

ROUTING = ("x", "expert_index", "expert_weight")
D = 16


def two_mixtures(sizes: list[dict[str, int]]) -> tuple[ir.Model, dict[str, Array], Array]:
    """x through one mixture of experts after the other: the graph, its inputs, the answer."""
    nodes, weights, feeds = [], [], {}
    x = expected = moe_inputs(0, n=5, D=D, E=1, K=1, F=1, Fs=0)["x"]
    for index, size in enumerate(sizes):
        case = moe_inputs(index, n=5, D=D, **size)
        names = ["x" if index == 0 else f"y{index - 1}", *(f"{name}{index}" for name in case if name != "x")]
        nodes.append(helper.make_node("moe", names, [f"y{index}"], domain="mythos"))
        expected = moe(expected, **{name: value for name, value in case.items() if name != "x"})
        for name, value in case.items():
            if name in ROUTING[1:]:
                feeds[f"{name}{index}"] = value
            elif name != "x":
                weights.append(numpy_helper.from_array(value, f"{name}{index}"))
    feeds = {"x": x, **feeds}
    ports = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), [None, value.shape[1]])
        for name, value in feeds.items()
    ]
    last = helper.make_tensor_value_info(f"y{len(sizes) - 1}", TensorProto.FLOAT, [None, D])
    graph = helper.make_graph(nodes, "g", ports, [last], weights)
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid("mythos", 1)]
    return ir.serde.deserialize_model(helper.make_model(graph, opset_imports=opsets, ir_version=10)), feeds, expected


@pytest.mark.parametrize("attach", [attach_functions, attach_tensorrt_functions])
def test_mixtures_of_different_sizes_get_their_own_bodies(attach: Callable[[ir.Model], None]) -> None:
    small, large = {"E": 2, "K": 1, "F": 3, "Fs": 0}, {"E": 5, "K": 3, "F": 8, "Fs": 4}
    model, feeds, expected = two_mixtures([small, large, small])
    attach(model)
    attach(model)  # replaces what it made
    assert [node.overload for node in model.graph] == ["", "2", ""]
    assert list(model.functions) == [("mythos", "moe", ""), ("mythos", "moe", "2")]
    serialized = ir.serde.serialize_model(model).SerializeToString()
    found = ort.InferenceSession(serialized, providers=["CPUExecutionProvider"]).run(None, feeds)[0]
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.skipif(not LIBRARY.exists(), reason=f"{LIBRARY.name} is not built: make native")
def test_what_the_library_has_no_kernels_for_runs_as_a_body_beside_those_that_it_has() -> None:
    """The library would take the name, and refuse the format."""
    inputs, attributes = linear_inputs(1, "fp8", (3,), 70, 37)
    plain = moe_inputs(2, 3, 37, 4, 2, 8, 0)
    plain.pop("x")
    weights = {**{name: inputs[name] for name in ("weight", "scale")}, **plain}
    nodes = [
        helper.make_node("linear", ["x", "weight", "scale"], ["h"], domain="mythos", **attributes),
        helper.make_node("moe", ["h", *plain], ["y"], domain="mythos"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, 70])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3, 37])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid("mythos", 1)]
    model = ir.serde.deserialize_model(helper.make_model(graph, opset_imports=opsets, ir_version=10))
    for _ in range(2):  # attached again, nothing changes
        attach_functions(model)
        assert set(model.functions) == {("mythos.portable", "linear", ""), ("mythos", "moe", "")}
        assert [call.label for call in calls_of(model)] == ["mythos::linear (fp8)", "mythos::moe"]
    (found,) = session(ir.serde.serialize_model(model)).run(None, {"x": inputs["x"]})
    expected = moe(linear(**inputs, **attributes), **plain)
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    with pytest.raises(LowerError, match=r"no form of mythos::linear \(fp8\) that TensorRT could build"):
        attach_tensorrt_functions(model)
