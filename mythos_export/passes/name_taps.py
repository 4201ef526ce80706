"""Values that verification looks at keep their names: the node `mythos::tap` goes, `inside/NAME` is what it showed.

    h = mythos::tap <name = "h"> (add_7)      ->      inside/h, in place of add_7

So the graph that ships has no node more, and its verification twin finds what to show by name (`verify/twin.py`).
Parsers
that keep ONNX's names, TensorRT's among them, show the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx
import onnx_ir as ir
import onnxscript
import torch

import mythos_model.ops  # noqa: F401  (registers the operator)
from mythos_export.kernels.text import DOMAIN, VERSION

TAP = "tap"
PREFIX = "inside/"


def name_taps(model: ir.Model) -> None:
    """Rename what is tapped. A value that is tapped twice, or enters the loop's body, gets an Identity to be named; a
    port keeps its name."""
    for node in list(model.graph.all_nodes()):
        if node.domain != DOMAIN or node.op_type != TAP:
            continue
        value, shown = node.inputs[0], node.outputs[0]
        assert value is not None and node.graph is not None
        name = PREFIX + node.attributes["name"].as_string()
        producer = value.producer()
        if producer is None or producer.graph is not node.graph or (value.name or "").startswith(PREFIX):
            node.domain, node.op_type = "", "Identity"
            node.attributes.clear()
            shown.name = name
            continue
        if value.shape is None:
            value.shape = shown.shape
        if shown.is_graph_output() and node.graph is model.graph:
            name = shown.name or name
        ir.convenience.replace_all_uses_with(shown, value, replace_graph_outputs=True)
        node.graph.remove(node, safe=True)
        value.name = name


def translations() -> dict[Any, Callable[..., Any]]:
    """torch operator -> its translation, as torch.onnx.export takes them."""
    schema = onnx.defs.OpSchema
    kinds = [f"tensor({name})" for name in ("float", "float16", "bfloat16", "double", "int64", "int32", "bool")]
    definition = schema(
        TAP,
        DOMAIN,
        VERSION,
        inputs=[schema.FormalParameter("x", "T")],
        outputs=[schema.FormalParameter("out", "T")],
        type_constraints=[("T", kinds, "any type")],
        attributes=[schema.Attribute("name", schema.AttrType.STRING)],
    )
    op = onnxscript.values.Op(onnxscript.values.Opset(DOMAIN, VERSION), TAP, definition)

    def tap(x: Any, name: str) -> Any:
        return op(x, name=name)

    return {torch.ops.mythos.tap.default: tap}
