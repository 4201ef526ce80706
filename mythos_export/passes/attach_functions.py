"""Give every node of the `mythos` domain a function body, so that any ONNX runtime can run the graph.

Calls that no library has kernels for go into a domain of their own (`text.PORTABLE_DOMAIN`)."""

from __future__ import annotations

import onnx_ir as ir

from mythos_export.errors import LowerError
from mythos_export.kernels.call import call_of
from mythos_export.kernels.fallback import DECOMPOSED, NATIVE
from mythos_export.kernels.op import OPERATORS
from mythos_export.kernels.text import DOMAIN, DOMAINS, PORTABLE_DOMAIN, VERSION


def attach_functions(model: ir.Model) -> None:
    """Attach the portable bodies of the operators that the graph uses; a runtime with a kernel ignores them."""
    _attach(model, tensorrt=False)


def attach_tensorrt_functions(model: ir.Model) -> None:
    """Replace the bodies by those that TensorRT can build: shapes that depend on no data, no NonZero."""
    _attach(model, tensorrt=True)


def detach_functions(model: ir.Model) -> None:
    """Take the bodies of operators with a plug-in away, so that inlining leaves their nodes whole."""
    plugins = {name for name, operator in OPERATORS.items() if operator.plugin}
    for identifier in [key for key in model.functions if key[0] == DOMAIN and key[1] in plugins]:
        del model.functions[identifier]


def _attach(model: ir.Model, tensorrt: bool) -> None:
    """A body may depend on the sizes of a call (how many experts): calls with other bodies are overloads of a name."""
    for key in [key for key in model.functions if key[0] in DOMAINS and key[1] in OPERATORS]:
        del model.functions[key]
    overloads: dict[str, dict[bytes, str]] = {}  # by domain and operator: a body, and what its overload is called
    for node in model.graph.all_nodes():
        if node.domain not in DOMAINS or node.op_type not in OPERATORS:
            continue
        operator = OPERATORS[node.op_type]
        call = call_of(node, operator.inputs)
        make = operator.tensorrt if tensorrt else operator.portable
        if make is None or (tensorrt and DECOMPOSED in operator.lacks(call.format, call.packed)):
            raise LowerError(f"there is no form of {call.label} that TensorRT could build")
        body = make(call)
        body.domain = node.domain = PORTABLE_DOMAIN if NATIVE in operator.lacks(call.format) else DOMAIN
        model.opset_imports[node.domain] = VERSION
        known = overloads.setdefault(f"{node.domain}::{operator.name}", {})
        content = body.SerializeToString(deterministic=True)
        if content not in known:
            known[content] = f"{len(known) + 1}" if known else ""
            body.overload = known[content]
            function = ir.serde.deserialize_function(body)
            model.functions[function.identifier()] = function
        node.overload = known[content]
    model.opset_imports[DOMAIN] = VERSION
