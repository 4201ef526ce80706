"""Give every node of the `mythos` domain a function body, so that any ONNX runtime can run the graph."""

from __future__ import annotations

import onnx_ir as ir

from mythos_export.errors import LowerError
from mythos_export.kernels.op import OPERATORS
from mythos_export.kernels.text import DOMAIN, VERSION
from mythos_model import MythosConfig


def attach_functions(model: ir.Model, config: MythosConfig) -> None:
    """Attach the portable bodies of the operators that the graph uses; a runtime with a kernel ignores them."""
    _attach(model, config, tensorrt=False)


def attach_tensorrt_functions(model: ir.Model, config: MythosConfig) -> None:
    """Replace the bodies by those that TensorRT can build: shapes that hang on no data, no NonZero."""
    _attach(model, config, tensorrt=True)


def detach_functions(model: ir.Model, config: MythosConfig) -> None:
    """Take the bodies of operators with a plug-in away, so that inlining leaves their nodes whole."""
    plugins = {name for name, operator in OPERATORS.items() if operator.plugin is not None}
    for identifier in [key for key in model.functions if key[0] == DOMAIN and key[1] in plugins]:
        del model.functions[identifier]


def _attach(model: ir.Model, config: MythosConfig, tensorrt: bool) -> None:
    used = {node.op_type for node in model.graph.all_nodes() if node.domain == DOMAIN}
    for name in sorted(used & OPERATORS.keys()):
        operator = OPERATORS[name]
        make = operator.tensorrt if tensorrt else operator.portable
        if make is None:
            raise LowerError(f"there is no form of {DOMAIN}::{name} that TensorRT could build")
        function = ir.serde.deserialize_function(make(config))
        model.functions[function.identifier()] = function
    model.opset_imports[DOMAIN] = VERSION
