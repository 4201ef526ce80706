"""Give every node of the `mythos` domain a function body, so that any ONNX runtime can run the graph."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import onnx_ir as ir

from mythos_export.errors import LowerError
from mythos_export.kernels.op import OPERATORS
from mythos_export.kernels.text import DOMAIN, VERSION


def attach_functions(model: ir.Model) -> None:
    """Attach the portable bodies of the operators that the graph uses; a runtime with a kernel ignores them."""
    _attach(model, tensorrt=False)


def attach_tensorrt_functions(model: ir.Model) -> None:
    """Replace the bodies by those that TensorRT can build: shapes that hang on no data, no NonZero."""
    _attach(model, tensorrt=True)


def detach_functions(model: ir.Model) -> None:
    """Take the bodies of operators with a plug-in away, so that inlining leaves their nodes whole."""
    plugins = {name for name, operator in OPERATORS.items() if operator.plugin is not None}
    for identifier in [key for key in model.functions if key[0] == DOMAIN and key[1] in plugins]:
        del model.functions[identifier]


def _attach(model: ir.Model, tensorrt: bool) -> None:
    used = {node.op_type for node in model.graph.all_nodes() if node.domain == DOMAIN}
    for name in sorted(used & OPERATORS.keys()):
        operator = OPERATORS[name]
        make = operator.tensorrt if tensorrt else operator.portable
        if make is None:
            raise LowerError(f"there is no form of {DOMAIN}::{name} that TensorRT could build")
        function = ir.serde.deserialize_function(make(_sizes(model, name)))
        model.functions[function.identifier()] = function
    model.opset_imports[DOMAIN] = VERSION


def _sizes(model: ir.Model, name: str) -> Any:
    """What a body hangs on: of a mixture of experts, how many there are and whether some are shared."""
    node = next(node for node in model.graph.all_nodes() if node.op_type == name and node.domain == DOMAIN)
    inputs = dict(zip(OPERATORS[name].inputs, node.inputs, strict=True))
    if "routed_gate_up" not in inputs:
        return None
    routed, shared = inputs["routed_gate_up"], inputs["shared_gate_up"]
    assert routed is not None and shared is not None and routed.shape is not None and shared.shape is not None
    return SimpleNamespace(n_experts=routed.shape[0], shared_ffn_dim=shared.shape[0])
