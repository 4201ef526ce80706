"""The passes that do one small thing, each on the smallest graph that shows it. Results stay what they were."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from graphs import body_of, kinds, looped, run

from mythos_export.passes.drop_metadata import drop_metadata
from mythos_export.passes.expand_float_products import expand_float_products
from mythos_export.passes.expand_rotary import expand_rotary
from mythos_export.passes.inline_functions import inline_functions
from mythos_export.passes.lift_constants import lift_constants
from mythos_export.passes.name_dimensions import name_dimensions
from mythos_export.passes.name_weights import name_weights
from mythos_export.passes.remove_unused import remove_unused
from mythos_export.passes.static_reshapes import static_reshapes
from mythos_runtime.ports import Port, Ports

X = np.arange(8, dtype=np.float32).reshape(2, 4) / 7


def test_lift_constants_leaves_none_in_the_body() -> None:
    model = looped("one = Constant <value = float {1.0}> ()  h_next = Add (h, one)")
    before = run(model, x=X)
    lift_constants(model)
    assert kinds(body_of(model)) == ["Identity", "Add"]
    assert np.array_equal(run(model, x=X), before)


def test_remove_unused_takes_what_nobody_reads_in_the_body_too() -> None:
    model = looped("dead = Neg (h)  h_next = Add (h, h)", before="gone = Neg (x)")
    before = run(model, x=X)
    remove_unused(model)
    assert kinds(body_of(model)) == ["Identity", "Add"]
    assert "Neg" not in kinds(model.graph)
    assert np.array_equal(run(model, x=X), before)


def test_static_reshapes_makes_the_target_a_constant() -> None:
    model = looped("size = Shape (h)  flat = Reshape (h, size)  h_next = Neg (flat)")
    before = run(model, x=X)
    reshape = next(node for node in body_of(model) if node.op_type == "Reshape")
    reshape.inputs[0].shape, reshape.outputs[0].shape = ir.Shape(["rows", 4]), ir.Shape(["rows", 2, 2])
    reshape.outputs[0].shape = ir.Shape(["rows", 4])
    static_reshapes(model)
    target = reshape.inputs[1].producer()
    assert target is not None
    assert list(target.attributes["value_ints"].as_ints()) == [0, 4]
    assert np.array_equal(run(model, x=X), before)


def test_drop_metadata_forgets_the_machine_in_the_body_too() -> None:
    model = looped("h_next = Neg (h)")
    for graph in model.graphs():
        for node in graph:
            node.metadata_props["pkg.torch.onnx.stack_trace"] = "somewhere/model.py"
    drop_metadata(model)
    assert "somewhere" not in str(ir.to_proto(model))


def test_name_weights_takes_the_wrappers_prefix_away() -> None:
    weight = ir.Value(name="model.embed.weight", const_value=ir.tensor(X, name="model.embed.weight"))
    model = looped("h_next = Neg (h)")
    model.graph.initializers["model.embed.weight"] = weight
    name_weights(model)
    assert list(model.graph.initializers) == ["embed.weight"]
    assert weight.const_value is not None and weight.const_value.name == "embed.weight"


def test_name_dimensions_names_those_of_the_ports() -> None:
    model = looped("h_next = Neg (h)")
    ports = Ports((Port("x", "float32", ("T", 4), "ids"),), (Port("y", "float32", ("T", "N"), "logits"),))
    name_dimensions(model, ports)
    assert [str(dim) for dim in model.graph.inputs[0].shape or ()] == ["tokens", "4"]
    assert [str(dim) for dim in model.graph.outputs[0].shape or ()] == ["tokens", "loops"]


def test_expand_float_products_leaves_no_matrix_product() -> None:
    model = looped(
        "product = MatMul (h, w)  h_next = Neg (product)",
        more="<float[4,4] w = {" + ", ".join(str(number / 10) for number in range(16)) + "}>",
    )
    before = run(model, x=X)
    for node in model.graph.all_nodes():
        for value in node.inputs:
            if value is not None and value.dtype is None:
                value.dtype = ir.DataType.FLOAT
    expand_float_products(model)
    assert "MatMul" not in kinds(body_of(model))
    assert np.allclose(run(model, x=X), before, rtol=1e-6)


@pytest.mark.parametrize("heads", [1, 2])
def test_expand_rotary_and_inline_functions_compute_the_same(heads: int) -> None:
    turn = f"wide = Unsqueeze (h, at)  turned = RotaryEmbedding <interleaved = 1, num_heads = {heads}> (wide, c, s)"
    angles = "at = Constant <value = int64[1] {0}> ()  c = Constant <value = float[1,2,%d] {%s}> ()"
    half = 4 // heads // 2
    numbers = [0.1 * (1 + number) for number in range(2 * half)]
    text = ", ".join(f"{number:.2f}" for number in numbers)
    before = (angles % (half, text)) + f"  s = Constant <value = float[1,2,{half}] {{{text}}}> ()"
    model = looped(f"{turn}  h_next = Squeeze (turned, at)", before=before)
    expected = run(model, x=X)
    expand_rotary(model)
    inline_functions(model)
    assert "RotaryEmbedding" not in kinds(body_of(model))
    assert not model.functions
    assert np.allclose(run(model, x=X), expected, rtol=1e-6)
