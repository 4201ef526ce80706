"""The graph that TensorRT is given is looked at before it is built: names, precision, files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from mythos_export.errors import TargetError
from mythos_export.targets.tensorrt_build import graph_inputs, load_graph
from mythos_export.targets.tensorrt_build.graph import check_external_data, check_graph, operator_limits, turing_limits

MakeOnnx = Callable[..., Path]


def test_inputs_have_the_names_of_the_contract(looped_onnx: MakeOnnx) -> None:
    inputs = dict(graph_inputs(load_graph(looped_onnx())))
    assert inputs["input_ids"] == ("batch", "tokens")
    assert inputs["past_loop"] == ("loops", "batch", "past", 8)
    assert inputs["max_loops"] == ()


def test_a_sound_graph_passes(looped_onnx: MakeOnnx) -> None:
    path = looped_onnx()
    check_graph(load_graph(path), path, precision="fp16", sms=(80, 75), rtx=True)


def test_missing_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="there is no ONNX file"):
        load_graph(tmp_path / "model.onnx")
    (tmp_path / "model.onnx").write_bytes(b"not an onnx file at all")
    with pytest.raises(TargetError, match="not an ONNX file"):
        load_graph(tmp_path / "model.onnx")
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(TargetError, match="no graph"):
        load_graph(tmp_path / "model.onnx")


def test_precision_has_to_be_the_graphs_own(looped_onnx: MakeOnnx) -> None:
    path = looped_onnx(element="float")
    model = load_graph(path)
    check_graph(model, path, precision="fp32", sms=(80,), rtx=True)
    with pytest.raises(TargetError, match=r"precision fp16 was asked for.*FLOAT cache"):
        check_graph(model, path, precision="fp16", sms=(80,), rtx=True)


def _entries(tensor: onnx.TensorProto, **changes: str | None) -> None:
    entries = {entry.key: entry.value for entry in tensor.external_data} | changes
    del tensor.external_data[:]
    for key, value in entries.items():
        if value is not None:
            tensor.external_data.add(key=key, value=value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"length": None}, "states no length"),
        ({"location": "../weights.safetensors"}, "not a relative path"),
        ({"location": "/weights.safetensors"}, "not a relative path"),
        ({"location": "other.safetensors"}, "other.safetensors is missing"),
        ({"offset": "100000"}, "ends at byte"),
    ],
)
def test_external_data_that_the_parser_cannot_read(
    looped_onnx: MakeOnnx, changes: dict[str, str | None], says: str
) -> None:
    path = looped_onnx()
    model = load_graph(path)
    _entries(model.graph.initializer[1], **changes)
    with pytest.raises(TargetError, match=f"'down'.*{says}"):
        check_external_data(model, path.parent)


def test_external_tensor_without_elements(looped_onnx: MakeOnnx) -> None:
    def add_empty(model: onnx.ModelProto) -> None:
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros((16, 0), np.float16), "empty"))

    path = looped_onnx(edit=add_empty)
    with pytest.raises(TargetError, match=r"'empty'.*no elements"):
        check_external_data(load_graph(path), path.parent)


@pytest.mark.parametrize(
    ("operator", "says"), [("NonZero", "no kernel"), ("Attention", "Loop body"), ("TensorScatter", "Loop body")]
)
def test_operators_that_do_not_build_in_the_body(looped_onnx: MakeOnnx, operator: str, says: str) -> None:
    model = load_graph(looped_onnx(body=f"h2 = {operator}(h)"))
    (limit,) = operator_limits(model)
    assert operator in limit.what and says in limit.reason


def test_a_plugin_of_the_same_name_is_not_judged(looped_onnx: MakeOnnx) -> None:
    assert operator_limits(load_graph(looped_onnx(body="h2 = mythos.Attention(h)"))) == []


def test_float32_product_in_an_fp16_graph_is_named_for_turing(looped_onnx: MakeOnnx) -> None:
    body = 'h_float = Cast<to = 1>(h)\n s = Einsum<equation = "btd,bsd->bts">(h_float, h_float)\n h2 = Identity(h)'
    path = looped_onnx(body=body)
    model = load_graph(path)
    (limit,) = turing_limits(model)
    assert "Einsum that makes 's'" in limit.what
    check_graph(model, path, precision="fp16", sms=(80,), rtx=True)
    with pytest.raises(TargetError, match="leave 75 out"):
        check_graph(model, path, precision="fp16", sms=(75, 80), rtx=True)
