"""Weights are in one file, once, whichever way a graph's products take them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx.parser
import onnx_ir as ir
import onnxruntime as ort  # type: ignore[import-untyped]
import torch
from safetensors import safe_open
from torch import nn

from mythos_export.passes.externalize_weights import link_weights
from mythos_export.passes.share_products import share_products
from mythos_export.weights_file import WeightsFile, write_weights
from mythos_model.looped import LoopedModel
from mythos_model.weights import Sources
from mythos_runtime.files import describe

WEIGHT = np.random.default_rng(0).standard_normal((40, 24)).astype(np.float32)  # [out, in], as a checkpoint has it
OTHER = WEIGHT + 1


def stored(path: Path) -> WeightsFile:
    """A model of one linear layer, w."""
    model = nn.ModuleDict({"w": nn.Linear(24, 40, bias=False)})
    return write_weights(cast(LoopedModel, model), Sources.plain({"w.weight": torch.from_numpy(WEIGHT)}), path)


def product(node: str, inputs: str, weights: dict[str, Any]) -> ir.Model:
    text = f'<ir_version: 10, opset_import: ["" : 23]> graph ({inputs} x) => (float[a,b] y) {{ {node} }}'
    model = ir.serde.deserialize_model(onnx.parser.parse_model(text))
    values = {value.name: value for each in model.graph for value in each.inputs if value is not None}
    for name, weight in weights.items():
        values[name].const_value = ir.tensor(weight, name=name)
        values[name].shape, values[name].type = ir.Shape(weight.shape), ir.TensorType(ir.DataType.FLOAT)
        model.graph.initializers.add(values[name])
    return model


def run(model: ir.Model, path: Path, x: np.ndarray) -> np.ndarray:
    ir.save(model, path)
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


def test_a_product_over_rows_takes_the_matrix_that_is_stored_transposed(tmp_path: Path) -> None:
    shared, own = tmp_path / "weights.safetensors", tmp_path / "rows.safetensors"
    weights = stored(shared)
    held = weights.model.state_dict()["w.weight"]
    assert torch.equal(held, torch.from_numpy(WEIGHT)) and not held.is_contiguous()
    whole = product("y = MatMul (x, w)", "float[b,t,24]", {"w": held.numpy().T})
    link_weights([whole], weights, tmp_path / "computed.safetensors")
    assert not (tmp_path / "computed.safetensors").exists()
    assert describe(shared) == weights.entry
    x = np.random.default_rng(1).standard_normal((2, 3, 24)).astype(np.float32)
    np.testing.assert_allclose(run(whole, tmp_path / "whole.onnx", x), x @ WEIGHT.T, rtol=1e-5, atol=1e-5)
    rows = product(
        "a = Gemm <transB = 1> (x, v) b = Gemm <transB = 1> (x, v) c = Gemm <transB = 1> (x, o)"
        "d = Add (a, b) y = Add (c, d)",
        "float[r,24]",
        {"v": held, "o": OTHER},
    )
    x = np.random.default_rng(1).standard_normal((3, 24)).astype(np.float32)
    share_products([rows], weights)
    link_weights([rows], weights, own)
    assert describe(shared) == weights.entry
    with safe_open(own, framework="pt") as file:
        assert list(file.keys()) == ["o"]  # it alone is nowhere in the other graph
        assert torch.equal(file.get_tensor("o"), torch.from_numpy(OTHER))
    assert {value.const_value.path for value in rows.graph.initializers.values()} == {str(shared), str(own)}
    gemms = [node for node in rows.graph if node.op_type == "Gemm"]
    assert [node.attributes["transB"].as_int() for node in gemms] == [0, 0, 1]
    assert gemms[0].inputs[1] is gemms[1].inputs[1]
    expected = x @ (2 * WEIGHT + OTHER).T
    np.testing.assert_allclose(run(rows, tmp_path / "rows.onnx", x), expected, rtol=1e-5, atol=1e-5)
